"""The cost of a lock, compared with redis-py's own lock in the same run: ``python -m tests.benchmarks.bench_locks``.

Uncontended: acquire and release, one after the other. Hand-over: from the beginning of a release to the entry of the
next waiter. ``redis.asyncio.lock.Lock`` polls: ten times a second by default, here also a hundred times a second, for
which every waiter needs a connection. It serves its waiters in no order.
"""

import asyncio
import contextvars
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import redis.asyncio

from mageflow.locks import LockService
from mageflow.store import Keys, LockStore, RedisPort
from mageflow.testing.valkey import EmbeddedValkey

Enter = Callable[[str], Any]


@asynccontextmanager
async def ours(url: str) -> AsyncIterator[Enter]:
    """Two lock services, like two processes; waiters alternate."""
    ports = [RedisPort(url), RedisPort(url)]
    fleet = [LockService(LockStore(port, Keys("mageflow", "bench"))) for port in ports]
    resources = [each.resource("bench") for each in fleet]
    turn = 0

    def enter(key: str) -> Any:
        nonlocal turn
        turn += 1
        return resources[turn % 2].acquire(key)

    yield enter
    for service, port in zip(fleet, ports, strict=True):
        await service.aclose()
        await port.aclose()


def theirs(sleep: float) -> Callable[[str], Any]:
    @asynccontextmanager
    async def open_(url: str) -> AsyncIterator[Enter]:
        client = redis.asyncio.Redis.from_url(url, max_connections=1000)
        yield lambda key: client.lock(f"bench:{key}", timeout=15, sleep=sleep)
        await client.aclose()

    return open_


async def uncontended(contestants: dict[str, Enter], rounds: int) -> dict[str, list[float]]:
    """Microseconds per acquire and release; contestants take turns, so that load on the machine affects all alike."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 50):
        for name, enter in contestants.items():
            started = time.perf_counter()
            async with enter("alone"):
                pass
            if number >= 50:
                times[name].append((time.perf_counter() - started) * 1e6)
    return times


async def server_time(pid: int, enter: Enter, rounds: int) -> float:
    """Microseconds of processor time the server spends on one acquire and release (Linux's count)."""

    def spent() -> float:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e3

    before = spent()
    for _ in range(rounds):
        async with enter("alone"):
            pass
    return (spent() - before) / rounds


async def hand_over(enter: Enter, waiters: int, rounds: int) -> list[float]:
    """Milliseconds from a release's beginning to the next one's entry."""
    times: list[float] = []
    for number in range(rounds):
        left = 0.0
        asked = 0

        async def wait(key: str) -> None:
            nonlocal left, asked
            asked += 1
            async with enter(key):
                times.append((time.perf_counter() - left) * 1e3)
                await asyncio.sleep(0)
                left = time.perf_counter()

        key = f"crowd-{waiters}-{number}"
        async with enter(key):
            crowd = [
                asyncio.get_running_loop().create_task(wait(key), context=contextvars.Context()) for _ in range(waiters)
            ]
            while asked < waiters:
                await asyncio.sleep(0)
            await asyncio.sleep(0.2)  # every task is in the queue, or has begun to poll
            left = time.perf_counter()
        await asyncio.gather(*crowd)
    return times


def line(name: str, times: list[float], unit: str) -> str:
    times = sorted(times)
    p50, p99 = statistics.median(times), times[min(len(times) - 1, int(len(times) * 0.99))]
    return f"  {name:<44} p50 {p50:9.2f} {unit}   p99 {p99:9.2f} {unit}"


async def main(rounds: int = 1000) -> None:
    """Print the comparison."""
    contestants: dict[str, Callable[[str], Any]] = {
        "mageflow": ours,
        "redis.asyncio.lock.Lock, polling each 100 ms": theirs(0.1),
        "redis.asyncio.lock.Lock, polling each 10 ms": theirs(0.01),
    }
    with EmbeddedValkey() as server:
        print("uncontended, acquire and release")
        async with AsyncExitStack() as stack:
            entered = {name: await stack.enter_async_context(open_(server.url)) for name, open_ in contestants.items()}
            for name, times in (await uncontended(entered, rounds)).items():
                print(line(name, times, "µs"), f"  server {await server_time(server.pid, entered[name], 500):5.0f} µs")
        for waiters in (2, 10, 100):
            print(f"hand-over with {waiters} waiting")
            for name, open_ in contestants.items():
                turns = 1 if waiters == 100 else 60 // waiters
                async with open_(server.url) as enter:
                    print(line(name, await hand_over(enter, waiters, turns), "ms"))


if __name__ == "__main__":
    asyncio.run(main(*(int(each) for each in sys.argv[1:])))
