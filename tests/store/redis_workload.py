"""What a program does with one Redis: locks that are waited for, a deadlock, a chain with a swarm in it."""

import asyncio
from collections.abc import Callable
from typing import Any

from mageflow.config import Settings
from mageflow.errors import DeadlockError
from mageflow.flows import Flows
from mageflow.locks import LockService
from mageflow.signatures import Status, SwarmConfig
from mageflow.store import Keys, LockStore, RedisClient, RedisPort, Store
from tests.flows.conftest import stop
from tests.flows.fake_hatchet import FakeHatchet, FakeWorker
from tests.locks.runs import Gate, attempt, start, waiting

QUICK = Settings(reconcile_grace_seconds=0.03, reconcile_check_seconds=0.05, reconcile_interval_seconds=0.01)


class Parts:
    """The rooms that keep something in Redis, over one client."""

    def __init__(self, client: RedisClient, namespace: str = "topology", lease_seconds: float = 15.0) -> None:
        self.port = RedisPort(client)
        keys = Keys("mageflow", namespace)
        self.locks = LockService(LockStore(self.port, keys), lease_seconds=lease_seconds, victim_backoff_seconds=0.0)
        self.store = Store(self.port, keys, QUICK)
        self.hatchet = FakeHatchet()
        self.flows = Flows(self.store, self.hatchet, self.hatchet, QUICK)

    async def aclose(self) -> None:
        await stop(self.flows)
        await self.locks.aclose()
        await self.port.aclose()

    async def run_flow(self, during: Callable[[], Any] | None = None) -> Any:
        """A chain with a nested swarm and a callback, from its signature to its end."""
        before = self.hatchet.by_task().get("done", 0)
        working = FakeWorker(self.hatchet, self.flows, dict.fromkeys(("one", "two", "done"), echo))
        inner = await self.flows.creation.swarm(["one"] * 6, config=SwarmConfig(max_concurrency=3), closed=True)
        chain = await self.flows.creation.chain(["one", inner, "two"], success=["done"])
        await self.flows.start(chain, {"m": 1})
        if during is not None:
            await during()
        reconciler = self.flows.reconciler()
        async with asyncio.timeout(30):
            while not (await self.flows.load(chain.key)).has_ended or self.hatchet.queue:
                await working.drain()
                await reconciler.sweep()
        assert (await self.flows.load(chain.key)).status is Status.DONE
        assert self.hatchet.by_task()["done"] == before + 1
        return chain

    async def contend(self, runs: int = 12) -> None:
        """Mutual exclusion under a crowd of one process."""
        inside = 0

        async def run() -> None:
            nonlocal inside
            async with self.locks.resource("crowd").acquire() as lease:
                inside += 1
                assert inside == 1
                await asyncio.sleep(0)
                inside -= 1
                lease.check()

        async with asyncio.timeout(30):
            await asyncio.gather(*(start(run()) for _ in range(runs)))

    async def deadlock(self) -> None:
        """Two runs cross; one of them gets the error, both end."""
        gates = [Gate(), Gate()]

        async def cross(number: int) -> str:
            first, second = ("a", "b") if number == 0 else ("b", "a")
            async with self.locks.resource(first).acquire():
                await gates[number].pass_through()
                try:
                    async with self.locks.resource(second).acquire():
                        return "both"
                except DeadlockError as error:
                    return "victim of " + " and ".join(sorted(edge.run_id for edge in error.cycle))

        tasks = [start(cross(number), within=attempt(f"r{number}")) for number in range(2)]
        for each in gates:
            await each.reached()
        gates[0].open()
        await waiting(self.locks, 1)
        gates[1].open()
        async with asyncio.timeout(30):
            assert await asyncio.gather(*tasks) == ["both", "victim of r0 and r1"]

    async def from_a_thread(self) -> None:
        """Synchronous code, on the loop that serves threads."""
        await asyncio.to_thread(self._in_thread)

    def _in_thread(self) -> None:
        with self.locks.resource("thread").acquire() as lease:
            lease.check()

    async def everything(self) -> None:
        """All of it, and nothing is left of the locks."""
        await self.contend()
        await self.deadlock()
        await self.from_a_thread()
        chain = await self.run_flow()
        assert (await self.store.census()).signatures["chain", "done"] >= 1
        assert await chain.remove()
        report = await self.locks.snapshot()
        assert report.holders == ()
        assert report.waiters == ()


async def echo(message: dict[str, Any]) -> Any:
    return message
