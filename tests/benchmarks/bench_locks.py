"""The cost of a lock, compared with redis-py's own lock in the same run: ``python -m tests.benchmarks.bench_locks``.

Uncontended: acquire and release, one after the other. Hand-over: from the beginning of a release to the entry of the
next waiter. ``redis.asyncio.lock.Lock`` polls: ten times a second by default, here also a hundred times a second, for
which every waiter needs a connection. It serves its waiters in no order.
"""

import argparse
import asyncio
import contextvars
import json
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import redis.asyncio

from mageflow.interceptors import Interceptor, RedisCall
from mageflow.locks import LockService
from mageflow.store import Keys, LockStore, RedisPort
from mageflow.testing.valkey import EmbeddedValkey

Enter = Callable[[str], Any]


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


def percentiles(times: list[float]) -> dict[str, float]:
    """Half of the values are below ``p50``, and 99 of 100 below ``p99``."""
    times = sorted(times)
    return {"p50": statistics.median(times), "p99": times[min(len(times) - 1, int(len(times) * 0.99))]}


class RoundTrips(Interceptor):
    """Counts the calls to Redis."""

    def __init__(self) -> None:
        self.count = 0

    def redis(self, call: RedisCall) -> Any:
        """One more."""
        self.count += 1
        return super().redis(call)


@asynccontextmanager
async def ours(url: str, seen: Interceptor | None = None) -> AsyncIterator[Enter]:
    """Two lock services, like two processes; waiters alternate."""
    ports = [RedisPort(url, seen), RedisPort(url, seen)]
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


@asynccontextmanager
async def trivial(url: str) -> AsyncIterator[Enter]:
    """Two scripts that do nothing: what the driver and the network cost."""
    client = redis.asyncio.Redis.from_url(url)
    sha = await client.script_load("return 1")

    @asynccontextmanager
    async def enter(key: str) -> AsyncIterator[None]:
        await cast("Awaitable[Any]", client.evalsha(sha, 0, key))
        yield
        await cast("Awaitable[Any]", client.evalsha(sha, 0, key))

    yield enter
    await client.aclose()


async def measure(rounds: int, url: str, pid: int) -> dict[str, Any]:
    """All measures: microseconds of a free lock, milliseconds of a hand-over, calls to Redis per waiter.

    Args:
        rounds: Free locks per contestant.
        url: The server.
        pid: Its process.
    """
    free: dict[str, Callable[[str], Any]] = {
        "mageflow": ours,
        "redis.asyncio.lock.Lock": theirs(0.1),
        "two trivial scripts": trivial,
    }
    found: dict[str, Any] = {
        "free lock, us": {},
        "free lock, server us": {},
        "hand-over, ms": {},
        "calls per waiter": {},
    }
    async with AsyncExitStack() as stack:
        entered = {name: await stack.enter_async_context(open_(url)) for name, open_ in free.items()}
        for name, times in (await uncontended(entered, rounds)).items():
            found["free lock, us"][name] = percentiles(times)
            found["free lock, server us"][name] = await server_time(pid, entered[name], max(50, rounds // 2))
    for waiters in (2, 10, 100, 1000):
        turns = 1 if waiters >= 100 else 60 // waiters
        seen = RoundTrips()
        async with ours(url, seen) as enter:
            row = {"mageflow": percentiles(await hand_over(enter, waiters, turns))}
        found["calls per waiter"][str(waiters)] = seen.count / (waiters + 1) / turns
        for name, sleep in (("polling each 100 ms", 0.1), ("polling each 10 ms", 0.01)):
            if waiters <= 100:  # more would need a connection each
                async with theirs(sleep)(url) as enter:
                    row[f"redis.asyncio.lock.Lock, {name}"] = percentiles(await hand_over(enter, waiters, turns))
        found["hand-over, ms"][str(waiters)] = row
    return found


def show(found: dict[str, Any]) -> None:
    """Print the comparison."""

    def line(name: str, row: dict[str, float], unit: str) -> str:
        return f"  {name:<44} p50 {row['p50']:9.2f} {unit}   p99 {row['p99']:9.2f} {unit}"

    print("uncontended, acquire and release")
    for name, row in found["free lock, us"].items():
        print(line(name, row, "us"), f"  server {found['free lock, server us'][name]:5.0f} us")
    for waiters, rows in found["hand-over, ms"].items():
        print(f"hand-over with {waiters} waiting: {found['calls per waiter'][waiters]:.2f} calls to Redis per waiter")
        for name, row in rows.items():
            print(line(name, row, "ms"))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1000, help="free locks per contestant")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--server", nargs=2, metavar=("URL", "PID"), help="a server that runs already")
    options = parser.parse_args()
    with ExitStack() as stack:
        url, pid = options.server or (None, None)
        if url is None:
            server = stack.enter_context(EmbeddedValkey())
            url, pid = server.url, server.pid
        found = asyncio.run(measure(options.rounds, url, int(pid)))
    if options.json:
        print(json.dumps(found))
    else:
        show(found)


if __name__ == "__main__":
    main()
