"""The work of one demo: a known number of runs of each kind, and their results."""

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field

from mageflow.cli.demo.shop import DEADLOCK_PAIR, Order, Run, Workload

__all__ = ["STAGGERED_TASK", "TASKS", "Results", "TaskRuns", "run_scenario"]

_REPEAT_SECONDS = 0.4
_RESULT_SECONDS = 25.0
"""How long to wait for a result after the time of the scenario."""

_HOLD_SECONDS = 3.0
"""How long each task of the deadlock holds its first lock. In this time the other one must start."""


@dataclass(frozen=True, slots=True)
class TaskRuns:
    """The runs of one task in the demo."""

    task: str
    shows: str
    """The feature that the runs show, in a few words."""
    runs: int
    """How many runs start at the beginning."""
    signed: int = 0
    """How many of them start from a signature."""
    is_repeated: bool = False
    """Whether more runs start until the time is over."""
    seconds: float = 0.05
    """How long each run works."""


STAGGERED_TASK = "stock.sync"

TASKS = {
    each.task: each
    for each in (
        TaskRuns("checkout.charge", "plain", 8, is_repeated=True),
        TaskRuns("report.render", "plain, synchronous", 6, is_repeated=True),
        TaskRuns("order.audit", "@with_ctx", 5),
        TaskRuns("order.reserve", "@with_signature", 7, signed=5),
        TaskRuns(STAGGERED_TASK, "@stagger_execution", 24, signed=6, seconds=0.4),
        TaskRuns("checkout.flaky", "fails once", 4),
        TaskRuns("checkout.hang", "never answers", 2),
        TaskRuns("checkout.refuse", "always fails", 2),
        TaskRuns("order.pay", "takes two locks", 1),
        TaskRuns("order.pack", "takes the same two", 1),
    )
}
"""The tasks of the demo by name, in the order they are shown. The steps of its chain and swarm are not among them."""


@dataclass(slots=True)
class Results:
    """All runs that were started so far. The list grows while the scenario runs."""

    seconds: float
    """How long the repeated runs continue."""
    runs: list[Run] = field(default_factory=list[Run])
    flows: list[Run] = field(default_factory=list[Run])
    started_at: float = field(default_factory=time.time)

    def of(self, task: str) -> list[Run]:
        """The runs of one task, in the order they were started."""
        return [run for run in self.runs if run.name == task]

    @property
    def ended(self) -> int:
        """How many runs have ended."""
        return sum(1 for run in self.runs if run.ended_at is not None)


async def run_scenario(workload: Workload, results: Results) -> None:
    """Start every run and wait for every result.

    A run without a result 25 s after the time of the scenario keeps ``ended_at`` None; an expectation reports it.
    """

    async def collect(starting: Awaitable[Run | list[Run]]) -> None:
        started = await starting
        runs = started if isinstance(started, list) else [started]
        for run in runs:
            (results.runs if run.kind == "task" else results.flows).append(run)
        await asyncio.gather(*(run.wait(results.seconds + _RESULT_SECONDS) for run in runs))

    async with asyncio.TaskGroup() as group:
        deadlock = workload.deadlock(1, pay_seconds=_HOLD_SECONDS, pack_seconds=_HOLD_SECONDS)
        for starting in (
            deadlock,
            workload.chain(Order(number=1, seconds=0.1), start=False),
            workload.swarm(0.1, start=False),
        ):
            group.create_task(collect(starting))
        for each in TASKS.values():
            if each.task not in DEADLOCK_PAIR:
                for number in range(each.runs):
                    group.create_task(collect(_start(workload, each, number)))
        ends = time.monotonic() + results.seconds
        number = max(each.runs for each in TASKS.values())
        while time.monotonic() < ends:
            for each in TASKS.values():
                if each.is_repeated:
                    group.create_task(collect(_start(workload, each, number)))
            number += 1
            await asyncio.sleep(_REPEAT_SECONDS)


def _start(workload: Workload, each: TaskRuns, number: int) -> Awaitable[Run]:
    task, order = workload.shop.named(each.task), Order(number=number, seconds=each.seconds)
    if number < each.signed:
        return workload.run_signed(task, order, {"customer": f"customer-{number}"})
    return workload.run(task, order)
