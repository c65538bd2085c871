"""What is run: every task of the shop a known number of times, and what came back."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hatchet_sdk.exceptions import FailedTaskRunExceptionGroup
from pydantic import BaseModel

from mageflow import Mageflow, SwarmConfig
from mageflow.cli.demo.flow_tasks import Move, Parcel, Warehouse
from mageflow.cli.demo.tasks import Order, Shop
from mageflow.errors import FlowFailedError

__all__ = [
    "CAST",
    "CHAIN",
    "MOVERS",
    "SWARM",
    "SWARM_ITEMS",
    "SWARM_PLACES",
    "FlowResult",
    "Play",
    "RunResult",
    "perform",
]

CHAIN = "ship order"
SWARM = "weigh parcels"
SWARM_ITEMS = 12
SWARM_PLACES = 4
"""How many items of the swarm may run at once."""

MOVERS = ("move_east", "move_west")

_STEADY_EVERY_SECONDS = 0.4
_PATIENCE_SECONDS = 25.0


@dataclass(frozen=True, slots=True)
class Part:
    """One task's part in the play."""

    what: str
    """What there is to see, in a few words."""
    runs: int
    """How many runs are started at once, at the beginning."""
    signed: int = 0
    """How many of them are started from a signature."""
    steady: bool = False
    """Whether one more run is started every now and then until the time is over."""


CAST: Mapping[str, Part] = {
    "price_order": Part("plain", runs=8, steady=True),
    "print_invoice": Part("plain, synchronous", runs=6, steady=True),
    "audit_order": Part("@with_ctx", runs=5),
    "greet_regular": Part("@with_signature", runs=7, signed=5),
    "reserve_stock": Part("@stagger_execution", runs=24, signed=6),
    "charge_card": Part("fails once", runs=4),
    "ask_supplier": Part("never answers", runs=2),
    "read_file": Part("fails for good", runs=2),
    "move_east": Part("wants two locks", runs=1),
    "move_west": Part("wants the same two", runs=1),
}
"""Every task that is run by itself, in the order it is shown."""


@dataclass(slots=True)
class RunResult:
    """One run as the program that started it saw it."""

    task: str
    run_id: str
    number: int
    started_at: float
    signature_key: str = ""
    identifiers: dict[str, Any] = field(default_factory=dict[str, Any])
    ended_at: float | None = None
    output: dict[str, Any] | None = None
    error: str | None = None

    @property
    def has_ended(self) -> bool:
        """Whether its result is known."""
        return self.ended_at is not None


@dataclass(slots=True)
class FlowResult:
    """A chain or a swarm as the program that started it saw it."""

    kind: str
    name: str
    key: str
    started_at: float
    ended_at: float | None = None
    output: Any = None
    error: str | None = None


@dataclass(slots=True)
class Play:
    """All runs so far; the live view looks at it while it grows."""

    seconds: float
    flows: list[FlowResult] = field(default_factory=list[FlowResult])
    results: list[RunResult] = field(default_factory=list[RunResult])
    started_at: float = field(default_factory=time.time)

    def of(self, task: str) -> list[RunResult]:
        """The runs of one task, in the order they were started."""
        return [result for result in self.results if result.task == task]

    @property
    def ended(self) -> int:
        """How many runs have ended."""
        return sum(1 for result in self.results if result.has_ended)


async def perform(client: Mageflow, shop: Shop, warehouse: Warehouse, play: Play) -> None:
    """Start every run, wait for every result, and note both in ``play``.

    Runs that have no result within the patience of the demo are left without one; an expectation will say so.
    """
    async with asyncio.TaskGroup() as group:
        for name in MOVERS:
            group.create_task(_plain(getattr(warehouse, name), name, 0, play, message=Move()))
        group.create_task(_chain(client, warehouse, play))
        group.create_task(_swarm(client, warehouse, play))
        for name, part in CAST.items():
            if name in MOVERS:
                continue
            task = getattr(shop, name)
            for number in range(part.runs):
                if number < part.signed:
                    group.create_task(_signed(client, task, name, number, play))
                else:
                    group.create_task(_plain(task, name, number, play))
        group.create_task(_steady(shop, play))


async def _steady(shop: Shop, play: Play) -> None:
    """Keep a little ordinary traffic going until the time is over."""
    names = [name for name, part in CAST.items() if part.steady]
    numbers = {name: CAST[name].runs for name in names}
    ends = time.monotonic() + play.seconds
    async with asyncio.TaskGroup() as group:
        while time.monotonic() < ends:
            for name in names:
                group.create_task(_plain(getattr(shop, name), name, numbers[name], play))
                numbers[name] += 1
            await asyncio.sleep(_STEADY_EVERY_SECONDS)


async def _chain(client: Mageflow, warehouse: Warehouse, play: Play) -> None:
    started_at = time.time()
    chain = await client.chain(warehouse.steps, name=CHAIN)
    result = FlowResult("chain", CHAIN, chain.key, started_at)
    play.flows.append(result)
    await _await_flow(chain, Parcel(number=1), result, play)


async def _swarm(client: Mageflow, warehouse: Warehouse, play: Play) -> None:
    started_at = time.time()
    items = [await client.sign(warehouse.weigh_parcel, number=number) for number in range(SWARM_ITEMS)]
    config = SwarmConfig(max_concurrency=SWARM_PLACES, refill_linger_ms=100)
    swarm = await client.swarm(items, name=SWARM, config=config, closed=True)
    result = FlowResult("swarm", SWARM, swarm.key, started_at)
    play.flows.append(result)
    await _await_flow(swarm, None, result, play)


async def _await_flow(flow: Any, message: Any, result: FlowResult, play: Play) -> None:
    try:
        async with asyncio.timeout(play.seconds + _PATIENCE_SECONDS):
            result.output = await flow.aio_run(message)
    except TimeoutError:
        return
    except FlowFailedError as failed:
        result.error = str(failed)
    result.ended_at = time.time()


async def _plain(task: Any, name: str, number: int, play: Play, *, message: BaseModel | None = None) -> None:
    started_at = time.time()
    ref = await task.aio_run(message or Order(number=number), wait_for_result=False)
    result = RunResult(name, ref.workflow_run_id, number, started_at)
    play.results.append(result)
    await _await_result(ref, result, play)


async def _signed(client: Mageflow, task: Any, name: str, number: int, play: Play) -> None:
    identifiers = {"customer": f"customer-{number}"}
    started_at = time.time()
    signature = await client.sign(task, task_identifiers=identifiers, number=number)
    ref = await signature.aio_run_no_wait()
    result = RunResult(name, ref.workflow_run_id, number, started_at, signature.key, identifiers)
    play.results.append(result)
    await _await_result(ref, result, play)


async def _await_result(ref: Any, result: RunResult, play: Play) -> None:
    try:
        async with asyncio.timeout(play.seconds + _PATIENCE_SECONDS):
            output = await ref.aio_result()
    except TimeoutError:
        return
    except FailedTaskRunExceptionGroup as failed:
        result.error = "; ".join(str(each) for each in failed.exceptions) or str(failed)
    else:
        result.output = output.model_dump() if isinstance(output, BaseModel) else dict(output)
    result.ended_at = time.time()
