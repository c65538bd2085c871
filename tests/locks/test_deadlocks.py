"""A deadlock is reported at the moment it closes, to the right run, with the whole cycle; nothing else is reported."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from typing import Literal

import pytest

from mageflow.errors import CycleEdge, DeadlockError
from mageflow.interceptors import Attempt, Deadlock, DeadlockCheck, Event, Interceptor, RedisCall
from mageflow.locks import LockService
from mageflow.store import VictimPolicy
from tests.locks.conftest import Services
from tests.locks.runs import Gate, attempt, start, until, waiting

Ending = Literal["both", "victim"]


class Detector(Interceptor):
    """Records deadlocks, checks and round trips."""

    def __init__(self) -> None:
        self.deadlocks: list[Deadlock] = []
        self.checks: list[DeadlockCheck] = []
        self.round_trips: list[str] = []

    def event(self, event: Event) -> None:
        if isinstance(event, Deadlock):
            self.deadlocks.append(event)
        elif isinstance(event, DeadlockCheck):
            self.checks.append(event)

    @contextmanager
    def redis(self, call: RedisCall) -> Generator[None]:
        if call.operation != "lock_wake":
            self.round_trips.append(call.operation)
        yield


class TwoLockRun:
    """A run that holds one resource, waits for the test, then wants another."""

    def __init__(
        self, locks: LockService, run: Attempt, first: str, second: str, policy: VictimPolicy = "requester"
    ) -> None:
        self.gate = Gate()
        self.error: DeadlockError | None = None
        self._locks = locks
        self._first, self._second = first, second
        self._policy: VictimPolicy = policy
        self.task = start(self._take_both(), within=run)

    async def _take_both(self) -> Ending:
        async with self._locks.resource(self._first).acquire():
            await self.gate.pass_through()
            try:
                async with self._locks.resource(self._second).acquire(policy=self._policy):
                    return "both"
            except DeadlockError as error:
                self.error = error
                return "victim"


async def test_request_that_closes_a_cycle_is_answered_in_its_own_round_trip(services: Services) -> None:
    """The verdict is the reply: one script call, with every run and resource of the cycle in order."""
    detector = Detector()
    one = services()
    two = services(detector)
    first = TwoLockRun(one, attempt("r1"), "alpha", "beta")
    second = TwoLockRun(two, attempt("r2", retries=2), "beta", "alpha")
    await first.gate.reached()
    await second.gate.reached()
    first.gate.open()
    await waiting(one, 1)
    detector.round_trips.clear()
    second.gate.open()
    assert await second.task == "victim"
    assert await first.task == "both"
    assert detector.round_trips == ["lock_acquire", "lock_release"], (
        "request and verdict; then the release of its own lock"
    )
    assert second.error is not None
    assert second.error.retryable
    assert second.error.victim_run_id == "r2"
    assert second.error.policy == "requester"
    assert second.error.cycle == (
        CycleEdge("task-r2", "r2", "alpha", ""),
        CycleEdge("task-r1", "r1", "beta", ""),
    )
    assert [each.resolution for each in detector.deadlocks] == ["victim_retried"]
    assert detector.deadlocks[0].victim == second.error.cycle[0]
    assert [each.result for each in detector.checks] == ["cycle"]


@pytest.mark.parametrize(
    ("policy", "facts", "victim"),
    [
        ("requester", ({}, {}), 1),
        ("youngest", ({"at": 2000.0}, {"at": 1000.0}), 0),
        ("youngest", ({"at": 1000.0}, {"at": 2000.0}), 1),
        ("lowest_priority", ({"priority": 1}, {"priority": 3}), 0),
        ("lowest_priority", ({"priority": 3}, {"priority": 2}), 1),
        ("lowest_priority", ({"priority": 2, "at": 9.0}, {"priority": 2, "at": 1.0}), 0),
    ],
)
async def test_victim_is_chosen_by_the_policy_of_the_closing_request(
    services: Services, policy: VictimPolicy, facts: tuple[dict[str, float], dict[str, float]], victim: int
) -> None:
    """Age is that of the run, the same on every attempt; a victim that waits in another process is woken."""
    runs = [
        attempt(
            f"r{index}",
            priority=int(each.get("priority", 1)),
            metadata={"mageflow_enqueued_at": f"{each['at']:.6f}"} if "at" in each else {},
        )
        for index, each in enumerate(facts)
    ]
    crossings = [
        TwoLockRun(services(), runs[0], "alpha", "beta", policy),
        TwoLockRun(services(), runs[1], "beta", "alpha", policy),
    ]
    for each in crossings:
        await each.gate.reached()
    crossings[0].gate.open()
    await waiting(services(), 1)
    crossings[1].gate.open()
    endings = [await each.task for each in crossings]
    assert endings[victim] == "victim"
    assert endings[1 - victim] == "both"
    error = crossings[victim].error
    assert error is not None
    assert error.victim_run_id == f"r{victim}"
    assert error.policy == policy


async def test_victim_keeps_its_other_locks_until_it_has_left_their_blocks(locks: LockService) -> None:
    """While the victim undoes its work under a lock, no other run may enter; then the next one does at once."""
    first = TwoLockRun(locks, attempt("r1"), "alpha", "beta")
    await first.gate.reached()
    holds, undone = Gate(), Gate()
    order: list[str] = []

    async def victim() -> None:
        async with locks.resource("beta").acquire():
            await holds.pass_through()
            try:
                async with locks.resource("alpha").acquire():
                    pytest.fail("entered")
            except DeadlockError:
                order.append("aborted")
                await undone.pass_through()
                order.append("undone")

    async def watch() -> None:
        await first.task
        order.append("next")

    task = start(victim(), within=attempt("r2"))
    await holds.reached()
    first.gate.open()
    await waiting(locks, 1)
    holds.open()
    await undone.reached()
    assert [each.task for each in (await locks.snapshot()).waiters] == ["task-r1"]
    watcher = asyncio.create_task(watch())
    undone.open()
    await asyncio.gather(task, watcher)
    assert order == ["aborted", "undone", "next"]


async def test_wait_outside_the_block_of_a_lease_is_no_edge(locks: LockService) -> None:
    """A run waits in one branch and works under a lease in another: the lease will be released, so no deadlock.

    Runs as nodes would call this a cycle (r1 waits for r2, r2 waits for r1).
    """
    work = Gate()
    wants = Gate()

    async def worker() -> None:
        async with locks.resource("alpha").acquire():
            await work.pass_through()

    async def waiter() -> None:
        await wants.pass_through()
        async with locks.resource("beta").acquire():
            pass

    async def run() -> None:
        await asyncio.gather(worker(), waiter())

    other = TwoLockRun(locks, attempt("r2"), "beta", "alpha")
    await other.gate.reached()
    task = start(run(), within=attempt("r1"))
    await work.reached()
    wants.open()
    await waiting(locks, 1)
    other.gate.open()
    report = await waiting(locks, 2)
    assert report.cycles == ()
    work.open()
    assert await other.task == "both"
    await task


async def test_cycle_through_two_branches_of_one_run_is_found(locks: LockService) -> None:
    """r1 holds and waits in two branches; each branch blocks the next run round: four waits, three runs, one cycle."""
    detector_gates = [Gate(), Gate()]
    errors: list[DeadlockError] = []

    async def branch(gate: Gate, first: str, second: str) -> None:
        async with locks.resource(first).acquire():
            await gate.pass_through()
            try:
                async with locks.resource(second).acquire():
                    pass
            except DeadlockError as error:
                errors.append(error)

    async def run() -> None:
        await asyncio.gather(branch(detector_gates[0], "a", "b"), branch(detector_gates[1], "c", "d"))

    others = [TwoLockRun(locks, attempt("r2"), "b", "c"), TwoLockRun(locks, attempt("r3"), "d", "a")]
    task = start(run(), within=attempt("r1"))
    for gate in [*detector_gates, *(each.gate for each in others)]:
        await gate.reached()
    detector_gates[0].open()
    await waiting(locks, 1)
    others[0].gate.open()
    await waiting(locks, 2)
    detector_gates[1].open()
    await waiting(locks, 3)
    others[1].gate.open()
    endings = [await each.task for each in others]
    await task
    assert endings == ["both", "victim"]
    assert errors == []
    error = others[1].error
    assert error is not None
    assert [each.run_id for each in error.cycle] == ["r3", "r1", "r2", "r1"]


async def test_hand_over_that_closes_a_cycle_is_noticed(services: Services) -> None:
    """A request for several locks is handed the first and would wait for the second: that edge is checked as well.

    No request is sent at that moment: the run whose release closes the cycle finds it, and the victim is woken.
    """
    detector = Detector()
    locks, releasing = services(), services(detector)
    hold_a = Gate()

    async def holder_of_a() -> None:
        async with releasing.resource("a").acquire():
            await hold_a.pass_through()

    outcome: list[str] = []

    async def wants_both() -> None:
        async with locks.resource("c").acquire():
            try:
                async with locks.acquire(locks.resource("a"), locks.resource("b")):
                    outcome.append("both")
            except DeadlockError as error:
                outcome.append(f"victim of {len(error.cycle)}")

    first = start(holder_of_a(), within=attempt("r0"))
    await hold_a.reached()
    run_of_two = TwoLockRun(locks, attempt("r2"), "b", "c")
    await run_of_two.gate.reached()
    second = start(wants_both(), within=attempt("r1"))
    await waiting(locks, 1)
    run_of_two.gate.open()
    assert (await waiting(locks, 2)).cycles == ()
    hold_a.open()
    await asyncio.gather(first, second)
    assert await run_of_two.task == "both"
    assert outcome == ["victim of 2"]
    assert len(detector.deadlocks) == 1
    report = await locks.snapshot()
    assert report.holders == ()
    assert report.waiters == ()


async def test_lone_waits_are_checked_again_with_every_renewal(services: Services) -> None:
    """The search is repeated while any request waits, even if no new request arrives."""
    detector = Detector()
    locks = services(detector, lease_seconds=2.4)

    async def ask() -> None:
        async with locks.resource("alpha").acquire():
            pass

    async with locks.resource("alpha").acquire():
        task = start(ask())
        await until(lambda: len(detector.checks) >= 3)
    await task
    assert {each.result for each in detector.checks} == {"clean"}


@pytest.mark.parametrize("backoff_seconds", [1.0, 300.0])
async def test_victim_that_will_be_retried_backs_off_after_its_locks_are_released(
    backoff_seconds: float, services: Services
) -> None:
    """The backoff delays its next attempt, not its locks."""
    locks = services(victim_backoff_seconds=backoff_seconds, random=_Longest())
    run = attempt("r1", retries=1)
    run.exception = DeadlockError((), "r1", "requester")
    run.will_retry = True
    loop = asyncio.get_running_loop()

    async def forgetful() -> None:
        await locks.resource("alpha").acquire().__aenter__()

    await start(forgetful(), within=run)
    started = loop.time()
    ending = asyncio.create_task(locks.release_attempt(run))

    async def is_free() -> bool:
        return not (await locks.snapshot()).holders

    await until(is_free)
    if backoff_seconds > 60:
        assert not ending.done(), "the locks are free while it waits"
        ending.cancel()
        await asyncio.wait([ending])
        return
    await ending
    assert loop.time() - started >= backoff_seconds - 0.01


class _Longest:
    def uniform(self, a: float, b: float, /) -> float:
        return b
