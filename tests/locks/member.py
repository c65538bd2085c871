"""One process of a fleet that uses the same locks; started by the tests with ``python -m tests.locks.member``.

It talks in JSON lines: results on standard output, orders on standard input where a mode takes any.
"""

import asyncio
import contextvars
import json
import random
import sys
import time
from collections.abc import Coroutine, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import redis.asyncio

from mageflow.errors import DeadlockError, LockLostError
from mageflow.interceptors import Deadlock, Event, Interceptor, LeaseLost, RedisCall, current_attempt
from mageflow.locks import LockService
from mageflow.store import Keys, LockStore, RedisPort
from tests.locks.scenes import attempt

POLICIES = ("requester", "youngest", "lowest_priority")


@dataclass(frozen=True)
class Circle:
    """A planned deadlock: task ``i`` holds resource ``i`` and wants resource ``i + 1``."""

    number: int
    size: int
    policy: str
    born: tuple[float, ...]
    priority: tuple[int, ...]
    process: tuple[int, ...]


def plan(seed: int, count: int, processes: int, size: int) -> list[Circle]:
    """The same for every process of a fleet."""
    source = random.Random(seed)
    return [
        Circle(
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
class Seen(Interceptor):
    """What this process's seam was told."""

    deadlocks: list[Deadlock] = field(default_factory=list)
    asked: int = 0
    lost: list[int] = field(default_factory=list)

    @contextmanager
    def redis(self, call: RedisCall) -> Generator[None]:
        self.asked += call.operation == "lock_acquire"
        yield

    def event(self, event: Event) -> None:
        if isinstance(event, Deadlock):
            self.deadlocks.append(event)
        elif isinstance(event, LeaseLost):
            self.lost.append(event.hold.token)


class Member:
    """The process's lock service and its own connection for the test's bookkeeping."""

    def __init__(self, url: str, lease_seconds: float = 15.0) -> None:
        self.seen = Seen()
        self.port = RedisPort(url, self.seen)
        self.locks = LockService(
            LockStore(self.port, Keys("mageflow", "tests")),
            self.seen,
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


def say(**facts: Any) -> None:
    """One line for the test."""
    print(json.dumps(facts), flush=True)


def apart(work: Coroutine[Any, Any, Any], within: Any = None) -> "asyncio.Task[Any]":
    """In a context of its own."""
    context = contextvars.Context()
    if within is not None:
        context.run(current_attempt.set, within)
    return asyncio.get_running_loop().create_task(work, context=context)


# -- circles -------------------------------------------------------------------------------------------------------


async def circles(url: str, index: int, processes: int, seed: int, count: int, size: int, at_once: int) -> None:
    """Play this process's part of every planned deadlock; the victim's task is run again, as Hatchet would."""
    member = Member(url)
    async with member.locks.resource("warm").acquire(index):
        pass  # the server now knows the scripts: a first call costs two round trips
    member.seen.asked = 0
    turns = asyncio.Semaphore(at_once)
    needed = 0

    async def take_part(circle: Circle, place: int) -> None:
        nonlocal needed
        first = member.locks.resource("circle").acquire
        here, there = f"{circle.number}-{place}", f"{circle.number}-{(place + 1) % circle.size}"
        for number in (1, 2):
            run = attempt(
                f"{circle.number}-{place}",
                task=f"task-{place}",
                retries=1,
                number=number,
                priority=circle.priority[place],
                metadata={"mageflow_enqueued_at": f"{circle.born[place]:.6f}"},
            )
            done = await apart(cross(circle, place, number, first, here, there), run)
            await member.locks.release_attempt(run)
            if done:
                break

    async def cross(circle: Circle, place: int, number: int, acquire: Any, here: str, there: str) -> bool:
        nonlocal needed
        needed += 2
        async with acquire(here):
            if number == 1:
                await member.meet(f"{seed}:{circle.number}", circle.size)
            try:
                async with acquire(there, policy=circle.policy):
                    say(circle=circle.number, place=place, ending="both", number=number)
                    return True
            except DeadlockError as error:
                say(
                    circle=circle.number,
                    place=place,
                    ending="victim",
                    number=number,
                    policy=error.policy,
                    cycle=[edge.run_id for edge in error.cycle],
                )
                return False

    async def play(circle: Circle) -> None:
        mine = [place for place, process in enumerate(circle.process) if process == index]
        if mine:
            async with turns:
                await asyncio.gather(*(take_part(circle, place) for place in mine))

    # Every process works through the plan in the same order, so that a bounded number at once cannot starve a circle.
    await asyncio.gather(*(play(circle) for circle in plan(seed, count, processes, size)))
    say(
        deadlocks=[
            [each.policy, each.victim.run_id, len(each.cycle), each.duration_seconds] for each in member.seen.deadlocks
        ],
        asked=member.seen.asked,
        needed=needed,
    )
    await member.aclose()


# -- soak ----------------------------------------------------------------------------------------------------------


async def soak(url: str, index: int, tasks: int, operations: int, resources: int, seed: int) -> None:
    """Tasks that order their locks acquire and release at random; every entry is written down under its token."""
    member = Member(url)
    locks = member.locks.resource("soak")
    left = operations
    source = random.Random(f"{seed}-{index}")
    deadlocks = 0

    async def enter(name: str, lease: Any) -> None:
        """In one transaction: the token must be larger than the last one's, and nobody else may be inside."""
        key = lease.resources[0]
        token = lease.token_of(key)
        # The check needs a script: reading and writing apart would itself be a race.
        verdict = await member.redis.eval(_ENTER, 2, f"test:inside:{key.key}", f"test:last:{key.key}", token, name)
        if verdict != "ok":
            say(violation=verdict, key=key.key, token=token)

    async def exit_(key: str) -> None:
        await member.redis.delete(f"test:inside:{key}")

    async def task(number: int) -> None:
        nonlocal left, deadlocks
        while left > 0:
            names = sorted(source.sample(range(resources), source.choice((1, 1, 2, 3))))
            left -= len(names)
            run = attempt(f"p{index}-t{number}-{left}")
            try:
                await apart(nest([str(each) for each in names]), run)
            except DeadlockError as error:
                deadlocks += 1
                say(violation="false positive", cycle=[edge.run_id for edge in error.cycle])

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
    say(done=operations - left, deadlocks=deadlocks, lost=len(member.seen.lost))
    await member.aclose()


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
    """Acquire, say so, hold until told on standard input, and say how it ended. The parent may kill or stop it."""
    member = Member(url, lease_seconds)
    orders = await _orders()
    block = member.locks.resource("orders").acquire(on_lost=on_lost, timeout=timedelta(seconds=60))  # type: ignore[arg-type]
    say(event="asking")
    try:
        async with block as lease:
            say(event="entered", token=lease.token, at=time.time())
            await orders.get()
            # What a careful program does before each exclusive step.
            say(event="about to write", is_lost=lease.is_lost)
        say(event="left")
    except LockLostError as error:
        say(event="lost", token=error.token)
    await member.aclose()


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
    if mode == "circles":
        asyncio.run(circles(url, *(int(each) for each in arguments)))
    elif mode == "soak":
        asyncio.run(soak(url, *(int(each) for each in arguments)))
    else:
        asyncio.run(hold(url, float(arguments[0]), arguments[1]))


if __name__ == "__main__":
    main()
