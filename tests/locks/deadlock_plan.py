"""Planned deadlocks of runs on real Hatchet workers: the plan, its execution, and the check of the results."""

import asyncio
import itertools
from collections import Counter
from dataclasses import dataclass
from typing import Any

from hatchet_sdk import Priority

POLICIES = ("requester", "youngest", "lowest_priority")


@dataclass(frozen=True)
class PlannedDeadlock:
    """A cycle of ``size`` runs: each holds its own resource and wants that of the next."""

    number: int
    size: int
    policy: str

    @property
    def priorities(self) -> list[Priority]:
        """By place; the second is the lowest, and the only one."""
        return [Priority.LOW if place == 1 else Priority.HIGH for place in range(self.size)]

    @property
    def victim(self) -> int | None:
        """The place that must give way; None where it depends on who closes the cycle."""
        return {"youngest": self.size - 1, "lowest_priority": 1}.get(self.policy)


def plan(count: int) -> list[PlannedDeadlock]:
    """Every size with every policy, over and over."""
    kinds = itertools.cycle(itertools.product((2, 3, 5), POLICIES))
    return [PlannedDeadlock(number, size, policy) for number, (size, policy) in zip(range(count), kinds, strict=False)]


@dataclass(frozen=True)
class Result:
    """What the runs of one planned deadlock returned."""

    planned: PlannedDeadlock
    results: list[dict[str, Any]]

    @property
    def victims(self) -> list[int]:
        """Places that were run a second time."""
        return [each["place"] for each in self.results if each["attempt"] > 1]

    def faults(self) -> list[str]:
        """What is wrong with it, one sentence each."""
        found: list[str] = []
        if sorted(each["place"] for each in self.results) != list(range(self.planned.size)):
            found.append("not every run succeeded")
        if [each["attempt"] for each in self.results if each["attempt"] > 1] != [2]:
            found.append(f"second attempts: {self.victims}")
        elif self.planned.victim is not None and self.victims != [self.planned.victim]:
            found.append(f"the victim is {self.victims}, not {self.planned.victim}")
        cycles = [each["cycle"] for each in self.results if each["cycle"]]
        if any(sorted(each) != sorted(str(result["run"]) for result in self.results) for each in cycles):
            found.append("the cycle does not name every run, once")
        return [f"{self.planned}: {each}" for each in found]


async def execute(tasks: Any, planned_deadlocks: list[PlannedDeadlock], slots: int) -> list[Result]:
    """Run every deadlock, with no more runs at once than slots: otherwise runs would wait for slots instead of locks.

    Args:
        tasks: ``lock_worker.py`` as a module.
        planned_deadlocks: The deadlocks.
        slots: Of all workers together.
    """
    room = asyncio.Semaphore(slots)
    entering = asyncio.Lock()

    async def one(planned: PlannedDeadlock) -> Result:
        async with entering:  # a deadlock gets all its slots or waits: two halves would wait for each other
            for _ in range(planned.size):
                await room.acquire()
        try:
            refs = []
            for place, priority in enumerate(planned.priorities):
                want = tasks.Place(
                    deadlock=planned.number,
                    place=place,
                    size=planned.size,
                    policy=planned.policy,
                    priority=priority.value,
                )
                refs.append(await tasks.take_part.aio_run(want, priority=priority, wait_for_result=False))
                await asyncio.sleep(0.003)  # age is counted in milliseconds
            results = await asyncio.gather(*(ref.aio_result() for ref in refs))
        finally:
            for _ in range(planned.size):
                room.release()
        return Result(planned, [each.get("take-part", each) for each in results])

    return await asyncio.gather(*(one(each) for each in planned_deadlocks))


def expected_victims(planned_deadlocks: list[PlannedDeadlock]) -> Counter[str]:
    """How many deadlocks were closed under each policy."""
    return Counter(each.policy for each in planned_deadlocks)
