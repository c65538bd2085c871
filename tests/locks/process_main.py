"""A process that uses locks, for tests with several: ``python -m tests.locks.process_main MODE URL arguments...``.

It prints its results as lines of JSON; in mode ``hold`` it reads a line from standard input before it goes on.
"""

import asyncio
import json
import random
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import redis.asyncio

from mageflow.errors import DeadlockError, LockLostError
from mageflow.interceptors import Deadlock, Event, Interceptor, LeaseLost, RedisCall
from mageflow.locks import LockService
from mageflow.store import Keys, LockStore, RedisPort
from tests.locks.runs import attempt, start

POLICIES = ("requester", "youngest", "lowest_priority")


@dataclass(frozen=True)
class CrossProcessDeadlock:
    """A planned deadlock across processes: task ``i`` holds resource ``i`` and wants resource ``i + 1``."""

    number: int
    size: int
    policy: str
    born: tuple[float, ...]
    priority: tuple[int, ...]
    process: tuple[int, ...]


def plan(seed: int, count: int, processes: int, size: int) -> list[CrossProcessDeadlock]:
    """The same plan in every process of a test."""
    source = random.Random(seed)
    return [
        CrossProcessDeadlock(
            number=number,
            size=size,
            policy=source.choice(POLICIES),
            born=tuple(source.sample(range(1, 1000), size)),
            priority=tuple(source.randint(1, 3) for _ in range(size)),
            process=tuple(source.randrange(processes) for _ in range(size)),
        )
        for number in range(count)
    ]


@dataclass
class Recorder(Interceptor):
    """Records what interceptors of this process get."""

    deadlocks: list[Deadlock] = field(default_factory=list)
    acquires: int = 0
    lost: list[int] = field(default_factory=list)

    @contextmanager
    def redis(self, call: RedisCall) -> Generator[None]:
        self.acquires += call.operation == "lock_acquire"
        yield

    def event(self, event: Event) -> None:
        if isinstance(event, Deadlock):
            self.deadlocks.append(event)
        elif isinstance(event, LeaseLost):
            self.lost.append(event.hold.token)


class LockClient:
    """The lock service of this process, and a connection for what the test itself counts."""

    def __init__(self, url: str, lease_seconds: float = 15.0) -> None:
        self.recorder = Recorder()
        self.port = RedisPort(url, self.recorder)
        self.locks = LockService(
            LockStore(self.port, Keys("mageflow", "tests")),
            self.recorder,
            lease_seconds=lease_seconds,
            victim_backoff_seconds=0.0,
        )
        self.redis = redis.asyncio.Redis.from_url(url, decode_responses=True)

    async def aclose(self) -> None:
        await self.locks.aclose()
        await self.port.aclose()
        await self.redis.aclose()

    async def meet(self, name: str, parties: int) -> None:
        """Wait until all parties are here."""
        if await self.redis.incr(f"test:{name}") == parties:
            await self.redis.rpush(f"test:{name}:go", *range(parties))
        while await self.redis.blpop(f"test:{name}:go", timeout=2) is None:
            pass


def emit(**facts: Any) -> None:
    """Print one line for the test."""
    print(json.dumps(facts), flush=True)


# -- deadlocks ------------------------------------------------------------------------------------------------------


async def deadlocks(url: str, index: int, processes: int, seed: int, count: int, size: int, at_once: int) -> None:
    """Run the tasks of this process in every planned deadlock; run the victim again, as Hatchet would."""
    client = LockClient(url)
    async with client.locks.resource("warm").acquire(index):
        pass  # the server now knows the scripts: a first call costs two round trips
    client.recorder.acquires = 0
    turns = asyncio.Semaphore(at_once)
    needed = 0

    async def take_part(planned: CrossProcessDeadlock, place: int) -> None:
        nonlocal needed
        first = client.locks.resource("circle").acquire
        here, there = f"{planned.number}-{place}", f"{planned.number}-{(place + 1) % planned.size}"
        for number in (1, 2):
            run = attempt(
                f"{planned.number}-{place}",
                task=f"task-{place}",
                retries=1,
                number=number,
                priority=planned.priority[place],
                metadata={"mageflow_enqueued_at": f"{planned.born[place]:.6f}"},
            )
            done = await start(cross(planned, place, number, first, here, there), run)
            await client.locks.release_attempt(run)
            if done:
                break

    async def cross(
        planned: CrossProcessDeadlock, place: int, number: int, acquire: Any, here: str, there: str
    ) -> bool:
        nonlocal needed
        needed += 2
        async with acquire(here):
            if number == 1:
                await client.meet(f"{seed}:{planned.number}", planned.size)
            try:
                async with acquire(there, policy=planned.policy):
                    emit(planned=planned.number, place=place, ending="both", number=number)
                    return True
            except DeadlockError as error:
                emit(
                    planned=planned.number,
                    place=place,
                    ending="victim",
                    number=number,
                    policy=error.policy,
                    cycle=[edge.run_id for edge in error.cycle],
                )
                return False

    async def play(planned: CrossProcessDeadlock) -> None:
        mine = [place for place, process in enumerate(planned.process) if process == index]
        if mine:
            async with turns:
                await asyncio.gather(*(take_part(planned, place) for place in mine))

    # Every process works through the plan in the same order, so that a bounded number at once cannot starve one.
    await asyncio.gather(*(play(planned) for planned in plan(seed, count, processes, size)))
    emit(
        deadlocks=[
            [each.policy, each.victim.run_id, len(each.cycle), each.duration_seconds]
            for each in client.recorder.deadlocks
        ],
        acquires=client.recorder.acquires,
        needed=needed,
    )
    await client.aclose()


# -- soak ----------------------------------------------------------------------------------------------------------


async def soak(url: str, index: int, tasks: int, operations: int, resources: int, seed: int) -> None:
    """Tasks take locks in one order, at random; every entry is recorded under its token."""
    client = LockClient(url)
    locks = client.locks.resource("soak")
    left = operations
    source = random.Random(f"{seed}-{index}")
    deadlocks = 0

    async def enter(name: str, lease: Any) -> None:
        """In one transaction: the token must be larger than the last one's, and no other run may be inside."""
        key = lease.resources[0]
        token = lease.token_of(key)
        # The check needs a script: reading and writing apart would itself be a race.
        verdict = await client.redis.eval(_ENTER, 2, f"test:inside:{key.key}", f"test:last:{key.key}", token, name)
        if verdict != "ok":
            emit(violation=verdict, key=key.key, token=token)

    async def exit_(key: str) -> None:
        await client.redis.delete(f"test:inside:{key}")

    async def task(number: int) -> None:
        nonlocal left, deadlocks
        while left > 0:
            names = sorted(source.sample(range(resources), source.choice((1, 1, 2, 3))))
            left -= len(names)
            run = attempt(f"p{index}-t{number}-{left}")
            try:
                await start(nest([str(each) for each in names]), run)
            except DeadlockError as error:
                deadlocks += 1
                emit(violation="false positive", cycle=[edge.run_id for edge in error.cycle])

    async def nest(names: list[str]) -> None:
        if not names:
            if source.random() < 0.1:
                await asyncio.sleep(source.random() * 0.002)
            return
        async with locks.acquire(names[0]) as lease:
            await enter(names[0], lease)
            await nest(names[1:])
            await exit_(names[0])

    await asyncio.gather(*(task(number) for number in range(tasks)))
    emit(done=operations - left, deadlocks=deadlocks, lost=len(client.recorder.lost))
    await client.aclose()


_ENTER = """
local inside = redis.call('GET', KEYS[1])
if inside then return 'two holders' end
local last = tonumber(redis.call('GET', KEYS[2]) or '0')
if tonumber(ARGV[1]) <= last then return 'token did not grow' end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('SET', KEYS[2], ARGV[1])
return 'ok'
"""


# -- one holder or waiter ------------------------------------------------------------------------------------------


async def hold(url: str, lease_seconds: float, on_lost: str) -> None:
    """Acquire, hold until a line arrives on standard input, and print how it ended. The parent may kill or stop it."""
    client = LockClient(url, lease_seconds)
    orders = await _orders()
    block = client.locks.resource("orders").acquire(on_lost=on_lost, timeout=timedelta(seconds=60))  # type: ignore[arg-type]
    emit(event="acquiring")
    try:
        async with block as lease:
            emit(event="entered", token=lease.token, at=time.time())
            await orders.get()
            # What a careful program does before each exclusive step.
            emit(event="about to write", is_lost=lease.is_lost)
        emit(event="left")
    except LockLostError as error:
        emit(event="lost", token=error.token)
    await client.aclose()


async def _orders() -> "asyncio.Queue[str]":
    queue: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    async def read() -> None:
        with suppress(asyncio.CancelledError):
            while line := await reader.readline():
                queue.put_nowait(line.decode().strip())

    queue.reader_task = loop.create_task(read())  # type: ignore[attr-defined]
    return queue


def main() -> None:
    """``MODE URL arguments...``; numbers as text."""
    mode, url, *arguments = sys.argv[1:]
    if mode == "deadlocks":
        asyncio.run(deadlocks(url, *(int(each) for each in arguments)))
    elif mode == "soak":
        asyncio.run(soak(url, *(int(each) for each in arguments)))
    else:
        asyncio.run(hold(url, float(arguments[0]), arguments[1]))


if __name__ == "__main__":
    main()
