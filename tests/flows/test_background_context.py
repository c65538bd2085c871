"""Work that an attempt leaves behind is no part of it: its spans and log fields are not those of the attempt."""

import asyncio
from contextlib import AbstractContextManager, nullcontext

import pytest

from mageflow.config import Settings
from mageflow.flows import Flows
from mageflow.flows.refills import RefillTimers
from mageflow.interceptors import Attempt, Interceptor, RedisCall, TaskInfo, current_attempt
from mageflow.store import Decision, Keys, RedisPort, Store
from mageflow.testing.valkey import EmbeddedValkey
from tests.flows.fake_hatchet import FakeHatchet


class Attempts(Interceptor):
    """The attempts in which acknowledgements were made."""

    def __init__(self) -> None:
        self.seen: list[Attempt | None] = []

    def redis(self, call: RedisCall) -> AbstractContextManager[None]:
        if call.operation == "ack":
            self.seen.append(current_attempt.get())
        return nullcontext()


@pytest.fixture
def attempt() -> Attempt:
    """An attempt that starts something."""
    task = TaskInfo("one", "one", execution_timeout_seconds=60, retries=0)
    return Attempt(task, "run-0", "step-0", "here", 1, 1, {}, lambda: False)


async def test_acknowledgements_are_made_outside_of_the_attempt_that_sent_the_runs(
    valkey: EmbeddedValkey, hatchet: FakeHatchet, attempt: Attempt
) -> None:
    """They come a moment later, for the runs of every attempt since."""
    seen, settings = Attempts(), Settings(reconcile_grace_seconds=0.3)
    store = Store(RedisPort(valkey.url, seen), Keys("mageflow", "test"), settings)
    flows = Flows(store, hatchet, hatchet, settings)
    token = current_attempt.set(attempt)
    await flows.start(await flows.creation.chain(["price", "ship"]))
    current_attempt.reset(token)
    async with asyncio.timeout(60):
        while not seen.seen:
            await asyncio.sleep(0.01)
    await flows.drain()
    await store.port.aclose()
    assert seen.seen == [None]


async def test_free_places_are_filled_outside_of_the_attempt_that_freed_them(attempt: Attempt) -> None:
    """What a timer sends later belongs to the flow, not to the item that ended before."""
    filled: asyncio.Queue[tuple[str, Attempt | None]] = asyncio.Queue()

    async def refill(key: str) -> None:
        filled.put_nowait((key, current_attempt.get()))

    keys = Keys("mageflow", "test").new("swarm", "0" * 32)
    token = current_attempt.set(attempt)
    RefillTimers(refill).update(Decision(keys=keys, refill_after_seconds=0.01))
    current_attempt.reset(token)

    async with asyncio.timeout(60):
        assert await filled.get() == (keys.record, None)
