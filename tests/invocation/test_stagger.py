"""The delay is uniform and the extension comes first. A refusal or a cancellation takes no time from the body."""

import asyncio
import random
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from mageflow.interceptors import Attempt, Interceptor, Stagger, TaskInfo
from mageflow.invocation import GivenBackError, stagger
from mageflow.types import ExtensionReason


class Recorder(Interceptor):
    """Keeps the calls, as they are when their block ends."""

    def __init__(self) -> None:
        self.staggers: list[Stagger] = []

    @contextmanager
    def _keep(self, call: Stagger) -> Generator[None]:
        try:
            yield
        finally:
            self.staggers.append(call)

    def stagger(self, call: Stagger):
        return self._keep(call)


def attempt(timeout: float = 60.0) -> Attempt:
    return Attempt(TaskInfo("t", "t", timeout, 0), "run", "step", "worker", 1, 1, {}, lambda: False)


class Engine:
    """Grants or refuses, and keeps the requests in order."""

    def __init__(self, grants: bool = True) -> None:
        self.grants = grants
        self.asked: list[tuple[float, float]] = []

    async def extend(self, attempt: Attempt, seconds: float, reason: ExtensionReason) -> float:
        assert reason == "stagger"
        self.asked.append((seconds, attempt.elapsed_seconds))
        return seconds if self.grants else 0.0


class Fixed:
    def __init__(self, value: float) -> None:
        self.value = value

    def uniform(self, a: float, b: float, /) -> float:
        return self.value


async def delays(window: float, count: int, seed: int) -> list[float]:
    """Many draws. Each sleep ends at once, because the run is cancelled already."""
    recorder, engine, source = Recorder(), Engine(), random.Random(seed)
    cancelled = asyncio.Event()
    cancelled.set()
    for _ in range(count):
        with pytest.raises(asyncio.CancelledError):
            await stagger(
                attempt(),
                window_seconds=window,
                random=source,
                extend=engine.extend,
                interceptor=recorder,
                cancelled=cancelled,
                stopping=asyncio.Event(),
            )
    assert [seconds for seconds, _ in engine.asked] == pytest.approx(
        [call.delay_seconds + 0.1 for call in recorder.staggers]
    )
    return [call.delay_seconds for call in recorder.staggers]


@pytest.mark.parametrize("window", [0.005, 1.0, 10.0])
async def test_ten_thousand_draws_are_uniform(window: float) -> None:
    """Kolmogorov-Smirnov test against the uniform distribution on [0, window]: D is below the 0.1 % critical value."""
    count = 10_000
    drawn = sorted(delay / window for delay in await delays(window, count, seed=20261124))
    assert drawn[0] >= 0.0
    assert drawn[-1] <= 1.0
    distance = max(max((i + 1) / count - each, each - i / count) for i, each in enumerate(drawn))
    assert distance < 1.95 / count**0.5


async def test_the_extension_is_asked_for_before_the_sleep_and_covers_it() -> None:
    """The request is for at least the delay, and comes before any sleep."""
    engine, recorder = Engine(), Recorder()
    await stagger(
        attempt(),
        window_seconds=1.0,
        random=Fixed(0.9),
        extend=engine.extend,
        interceptor=recorder,
        cancelled=asyncio.Event(),
        stopping=asyncio.Event(),
    )
    [(seconds, elapsed)] = engine.asked
    assert seconds > 0.9
    assert elapsed < 0.8
    assert recorder.staggers[0].slept_seconds >= 0.9


async def test_without_an_extension_the_delay_is_cut_to_a_tenth_of_what_is_left() -> None:
    """A refusal is recorded, and the attempt still runs with nine tenths of its time."""
    recorder, subject = Recorder(), attempt(timeout=5.0)
    await stagger(
        subject,
        window_seconds=10.0,
        random=Fixed(10.0),
        extend=Engine(grants=False).extend,
        interceptor=recorder,
        cancelled=asyncio.Event(),
        stopping=asyncio.Event(),
    )
    assert recorder.staggers[0].extension_failed
    assert recorder.staggers[0].slept_seconds < 1.0
    assert subject.remaining_seconds > 3.5


async def test_a_cancellation_ends_the_sleep_at_once() -> None:
    """The sleep ends at the cancel signal, not when the SDK cancels the coroutine a second later."""
    recorder, cancelled = Recorder(), asyncio.Event()
    asyncio.get_running_loop().call_later(0.02, cancelled.set)
    with pytest.raises(asyncio.CancelledError):
        await stagger(
            attempt(),
            window_seconds=30.0,
            random=Fixed(30.0),
            extend=Engine().extend,
            interceptor=recorder,
            cancelled=cancelled,
            stopping=asyncio.Event(),
        )
    assert recorder.staggers[0].slept_seconds < 10.0


@pytest.mark.parametrize("begins_before", [True, False])
async def test_a_worker_that_stops_gives_a_long_sleep_back(begins_before: bool) -> None:
    """At once, whether it was asked to stop before or during the sleep."""
    recorder, stopping = Recorder(), asyncio.Event()
    if begins_before:
        stopping.set()
    asyncio.get_running_loop().call_later(0.1, stopping.set)
    with pytest.raises(GivenBackError):
        async with asyncio.timeout(30):
            await stagger(
                attempt(),
                window_seconds=1e6,
                random=Fixed(1e6),
                extend=Engine().extend,
                interceptor=recorder,
                cancelled=asyncio.Event(),
                stopping=stopping,
            )
    assert recorder.staggers[0].slept_seconds < 30.0


async def test_a_worker_that_stops_sleeps_a_short_rest_out() -> None:
    """Hatchet would need longer to hand the run to another worker."""
    recorder, stopping = Recorder(), asyncio.Event()
    stopping.set()
    await stagger(
        attempt(),
        window_seconds=1.0,
        random=Fixed(0.5),
        extend=Engine().extend,
        interceptor=recorder,
        cancelled=asyncio.Event(),
        stopping=stopping,
    )
    assert recorder.staggers[0].slept_seconds >= 0.5
