import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from mageflow.config import Settings
from mageflow.flows import Flows
from mageflow.signatures import Status
from mageflow.store import Keys, RedisPort, Store
from tests.flows.fake_hatchet import FakeHatchet, FakeWorker
from tests.store.conftest import port, round_trips, valkey, valkey_server  # noqa: F401 - fixtures

QUICK = Settings(reconcile_grace_seconds=0.03, reconcile_check_seconds=0.03, reconcile_interval_seconds=0.01)
"""For flows whose reconciler is in a hurry."""


@pytest.fixture
def settings() -> Settings:
    """Intervals short enough for tests."""
    return Settings(reconcile_grace_seconds=0.05, reconcile_check_seconds=0.1, reconcile_interval_seconds=0.02)


@pytest.fixture
def store(port: RedisPort, settings: Settings) -> Store:  # noqa: F811 - as pytest has it
    """The store under test."""
    return Store(port, Keys("mageflow", "test"), settings)


@pytest.fixture
def hatchet() -> FakeHatchet:
    """A fake Hatchet: a queue in this process."""
    return FakeHatchet()


@pytest.fixture
async def flows(store: Store, hatchet: FakeHatchet) -> AsyncIterator[Flows]:
    """The flows under test; their acknowledgements wait for so long that a test needs none of them."""
    flows = Flows(store, hatchet, hatchet, Settings())
    flows._acknowledgements._delay_seconds = 600.0
    yield flows
    await stop(flows)


@pytest.fixture
async def quick(store: Store, hatchet: FakeHatchet) -> AsyncIterator[Flows]:
    """Flows whose reconciler acts after some hundredths of a second.

    A pause of the process is longer than that at times. Then a run that Hatchet has already is sent a second time;
    admission turns it away, and `FakeHatchet` counts the two as one.
    """
    hatchet.is_slow = True
    flows = Flows(Store(store.port, store.keys, QUICK), hatchet, hatchet, QUICK)
    yield flows
    await stop(flows)


@pytest.fixture
def worker(hatchet: FakeHatchet, flows: Flows) -> Callable[..., FakeWorker]:
    """Makes workers: ``worker(double=task_function, ...)``."""

    def make(**bodies: Any) -> FakeWorker:
        return FakeWorker(hatchet, flows, bodies)

    return make


async def echo(message: dict[str, Any]) -> Any:
    """A task function that returns its message."""
    return message


async def until_ended(flows: Flows, key: str, worker: FakeWorker | None = None) -> Status:
    """Sweep, and let a worker work, until a signature or flow has ended; returns its status."""
    reconciler = flows.reconciler()
    async with asyncio.timeout(60):
        while not (signature := await flows.load(key)).has_ended:
            await reconciler.sweep()
            if worker is not None:
                await worker.drain()
            await asyncio.sleep(0.01)
    await asyncio.gather(*reconciler._confirming.values())  # what ended the flow also sends its callbacks
    return signature.status


async def stop(flows: Flows) -> None:
    """Stop the background tasks of flows."""
    await flows.drain()
    for task in asyncio.all_tasks():
        if task.get_name().startswith("mageflow-"):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
