import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from opentelemetry.trace import NoOpTracerProvider
from prometheus_client import CollectorRegistry

from mageflow.cluster import ClusterObserver
from mageflow.config import Settings
from mageflow.flows import Flows
from mageflow.locks import LockService
from mageflow.store import Keys, LockStore, RedisPort, Store
from mageflow.telemetry import Telemetry
from mageflow.testing.capture import Samples, samples
from mageflow.testing.valkey import EmbeddedValkey
from tests.flows.fake_hatchet import FakeHatchet, FakeWorker

LOCK_LEASE_SECONDS = 4.0


async def echo(message: dict[str, Any]) -> Any:
    return message


async def fail(message: dict[str, Any]) -> None:
    raise ValueError("no good")


class Process:
    """What one worker process has: connections, telemetry, flows, locks and an observer of its own."""

    def __init__(self, url: str, lease_seconds: float, interval_seconds: float) -> None:
        self.registry = CollectorRegistry()
        settings = Settings()
        telemetry = Telemetry(settings, registry=self.registry, tracer_provider=NoOpTracerProvider())
        assert telemetry.recorder.instruments  # as a worker creates them when it starts
        self.port = RedisPort(url, telemetry.interceptor)
        keys = Keys("mageflow", "tests")
        self.store = Store(self.port, keys, settings, telemetry.interceptor)
        self.hatchet = FakeHatchet()
        self.flows = Flows(self.store, self.hatchet, self.hatchet, settings, telemetry.interceptor)
        self.worker = FakeWorker(self.hatchet, self.flows, {"echo": echo, "fail": fail})
        self.locks = LockService(LockStore(self.port, keys), lease_seconds=LOCK_LEASE_SECONDS)
        self.observer = ClusterObserver(
            self.store,
            self.locks,
            telemetry.interceptor,
            interval_seconds=interval_seconds,
            lease_seconds=lease_seconds,
        )
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.task = asyncio.create_task(self.observer.run())

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)

    @property
    def samples(self) -> Samples:
        return samples(self.registry)

    @property
    def leads(self) -> float | None:
        return self.registry.get_sample_value("mageflow_cluster_leader")

    def shows(self, name: str) -> bool:
        return any(family.name == name for family in self.registry.collect())


MakeProcess = Callable[..., Process]


@pytest.fixture
async def process(mageflow_redis: EmbeddedValkey) -> AsyncIterator[MakeProcess]:
    """Makes processes; afterwards no key is left without a TTL."""
    made: list[Process] = []

    def make(*, lease_seconds: float = 15.0, interval_seconds: float = 5.0, url: str = "") -> Process:
        made.append(Process(url or mageflow_redis.url, lease_seconds, interval_seconds))
        return made[-1]

    yield make
    for each in made:
        await each.stop()
        await each.flows.drain()
        await each.locks.aclose()
        await each.port.aclose()
    await asyncio.sleep(0)
    mageflow_redis.start()
    assert mageflow_redis.keys_without_ttl() == []


async def until(condition: Callable[[], bool | Awaitable[bool]], seconds: float = 60.0) -> None:
    """Wait for a condition; waiting in vain fails the test. The limit is for a busy machine."""
    async with asyncio.timeout(seconds):
        while True:
            holds = condition()
            if isinstance(holds, bool):
                if holds:
                    return
            elif await holds:
                return
            await asyncio.sleep(0.01)
