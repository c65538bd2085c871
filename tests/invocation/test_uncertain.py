"""When the worker cannot know how Hatchet ended an attempt."""

import asyncio
import time

import pytest

from mageflow.interceptors import Attempt, TaskInfo
from mageflow.invocation.outcome import is_uncertain
from mageflow.loop_stalls import LoopStalls


def uncertain(
    elapsed: float,
    *,
    cancelled_after: float | None = None,
    before: float = 0.0,
    within: float = 0.0,
    refused: int = 0,
    outcome: str = "succeeded",
) -> bool:
    now = [0.0]
    attempt = Attempt(TaskInfo("t", "t", 10.0, 0), "r", "s", "w", 1, 1, {}, lambda: False, monotonic=lambda: now[0])
    now[0] = elapsed
    attempt.outcome = outcome  # type: ignore[assignment]
    attempt.refused_extensions = refused
    return is_uncertain(attempt, cancelled_after=cancelled_after, stalled_before=before, stalled_within=within)


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        (False, uncertain(5.0)),
        (True, uncertain(10.0)),
        (True, uncertain(0.1, before=9.9)),
        (False, uncertain(0.1, before=8.0)),
        (False, uncertain(9.0, cancelled_after=9.0)),
        (False, uncertain(3.0, cancelled_after=3.0)),
        (True, uncertain(3.0, cancelled_after=3.0, before=7.0)),
        (True, uncertain(12.0, cancelled_after=12.0, within=5.0)),
        (False, uncertain(12.0, cancelled_after=12.0, within=2.0)),
        (True, uncertain(1.0, refused=1)),
        (False, uncertain(1.0, refused=1, outcome="skipped")),
    ],
)
def test_uncertain(expected: bool, actual: bool) -> None:
    """The clock, the stalls and the refusals decide; a quiet worker asks nothing."""
    assert actual is expected


async def test_a_stall_is_measured_while_it_lasts_and_afterwards() -> None:
    """Also from code that blocks the loop itself."""
    stalls = LoopStalls()
    watch = asyncio.create_task(stalls.run())
    await asyncio.sleep(0.05)
    began = time.monotonic()
    assert stalls.longest(began) < 0.9
    time.sleep(1.5)  # noqa: ASYNC251 - it is to block the loop
    assert stalls.longest(began) >= 1.0
    await asyncio.sleep(0)
    await asyncio.sleep(0.05)
    ended = time.monotonic()
    assert stalls.longest(began, ended) >= 1.0
    assert stalls.longest(ended + 1.0, ended + 2.0) == 0.0
    watch.cancel()
