"""Planned deadlocks over real Hatchet workers: the plan, the play, and what must have come of it."""

import asyncio
import itertools
from collections import Counter
from dataclasses import dataclass
from typing import Any

from hatchet_sdk import Priority

POLICIES = ("requester", "youngest", "lowest_priority")


@dataclass(frozen=True)
class Planned:
    """A circle of ``size`` runs: each holds its own resource and wants that of the next."""

    number: int
    size: int
    policy: str

    @property
    def priorities(self) -> list[Priority]:
        """By place; the second is the lowest, and the only one."""
        return [Priority.LOW if place == 1 else Priority.HIGH for place in range(self.size)]

    @property
    def victim(self) -> int | None:
        """The place that must give way; None where it depends on who closes the circle."""
        return {"youngest": self.size - 1, "lowest_priority": 1}.get(self.policy)


def plan(count: int) -> list[Planned]:
    """Every size with every policy, over and over."""
    kinds = itertools.cycle(itertools.product((2, 3, 5), POLICIES))
    return [Planned(number, size, policy) for number, (size, policy) in zip(range(count), kinds, strict=False)]


@dataclass(frozen=True)
class Played:
    """What the runs of one circle said."""

    circle: Planned
    results: list[dict[str, Any]]

    @property
    def victims(self) -> list[int]:
        """Places that were run a second time."""
        return [each["place"] for each in self.results if each["attempt"] > 1]

    def faults(self) -> list[str]:
        """What is not as it must be."""
        found: list[str] = []
        if sorted(each["place"] for each in self.results) != list(range(self.circle.size)):
            found.append("not everybody ended well")
        if [each["attempt"] for each in self.results if each["attempt"] > 1] != [2]:
            found.append(f"second attempts: {self.victims}")
        elif self.circle.victim is not None and self.victims != [self.circle.victim]:
            found.append(f"the victim is {self.victims}, not {self.circle.victim}")
        cycles = [each["cycle"] for each in self.results if each["cycle"]]
        if any(sorted(each) != sorted(str(result["run"]) for result in self.results) for each in cycles):
            found.append("the cycle does not name every run, once")
        return [f"circle {self.circle}: {each}" for each in found]


async def play(tasks: Any, circles: list[Planned], slots: int) -> list[Played]:
    """Run every circle; never more runs at once than there are slots, or they would wait for those instead.

    Args:
        tasks: ``lock_worker.py`` as a module.
        circles: What to play.
        slots: Of all workers together.
    """
    room = asyncio.Semaphore(slots)
    entering = asyncio.Lock()

    async def one(circle: Planned) -> Played:
        async with entering:  # a circle gets all its places or waits, or two halves would wait for each other
            for _ in range(circle.size):
                await room.acquire()
        try:
            refs = []
            for place, priority in enumerate(circle.priorities):
                want = tasks.Place(
                    circle=circle.number, place=place, size=circle.size, policy=circle.policy, priority=priority.value
                )
                refs.append(await tasks.circle.aio_run(want, priority=priority, wait_for_result=False))
                await asyncio.sleep(0.003)  # age is counted in milliseconds
            results = await asyncio.gather(*(ref.aio_result() for ref in refs))
        finally:
            for _ in range(circle.size):
                room.release()
        return Played(circle, [each.get("circle", each) for each in results])

    return await asyncio.gather(*(one(circle) for circle in circles))


def expected_victims(circles: list[Planned]) -> Counter[str]:
    """How many deadlocks were closed under each policy."""
    return Counter(circle.policy for circle in circles)
