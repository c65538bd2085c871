"""The tasks of the demo that work together: steps of a chain, items of a swarm, two that want the same two shelves."""

import asyncio
from dataclasses import dataclass
from typing import Annotated, Any

from hatchet_sdk import Context
from pydantic import BaseModel

from mageflow import Mageflow, ReturnValue

__all__ = ["SHELVES", "Parcel", "Warehouse", "declare_warehouse"]

SHELVES = ("shelf-east", "shelf-west")
_MEETING_SECONDS = 5.0


class Parcel(BaseModel):
    """What a step is given: a parcel, and what the step before returned."""

    number: int = 0
    before: Annotated[dict[str, Any], ReturnValue()] = {}


class ParcelDone(BaseModel):
    """What a step returns: what has been done to the parcel so far."""

    number: int
    done: list[str]


class Move(BaseModel):
    """What a mover is given; it needs nothing."""


class Moved(BaseModel):
    """Which attempt it took."""

    attempt: int


@dataclass(frozen=True)
class Warehouse:
    """The declared tasks. Typed loosely, as `Shop`."""

    pick_parcel: Any
    pack_parcel: Any
    ship_parcel: Any
    weigh_parcel: Any
    move_east: Any
    move_west: Any

    def all(self) -> list[Any]:
        """Every task, as a worker takes them."""
        return list(vars(self).values())

    @property
    def steps(self) -> list[Any]:
        """The chain, in order."""
        return [self.pick_parcel, self.pack_parcel, self.ship_parcel]


def declare_warehouse(client: Mageflow) -> Warehouse:
    """Declare the tasks of the warehouse on a client."""
    shelves = {name: client.resource(name) for name in SHELVES}
    # Both movers hold their first shelf before either asks for its second: the deadlock is real, and happens each time.
    both_hold_one = asyncio.Barrier(2)

    @client.task(name="pick_parcel")
    async def pick_parcel(parcel: Parcel) -> ParcelDone:
        await asyncio.sleep(0.1)
        return ParcelDone(number=parcel.number, done=["picked"])

    @client.task(name="pack_parcel")
    async def pack_parcel(parcel: Parcel) -> ParcelDone:
        await asyncio.sleep(0.2)
        return ParcelDone(number=parcel.number, done=[*parcel.before["done"], "packed"])

    @client.task(name="ship_parcel")
    async def ship_parcel(parcel: Parcel) -> ParcelDone:
        await asyncio.sleep(0.1)
        return ParcelDone(number=parcel.number, done=[*parcel.before["done"], "shipped"])

    @client.task(name="weigh_parcel")
    async def weigh_parcel(parcel: Parcel) -> ParcelDone:
        await asyncio.sleep(0.1)
        return ParcelDone(number=parcel.number, done=["weighed"])

    async def move(first: str, second: str, ctx: Context) -> Moved:
        async with shelves[first].acquire():
            if ctx.attempt_number == 1:
                async with asyncio.timeout(_MEETING_SECONDS):
                    await both_hold_one.wait()
            async with shelves[second].acquire():
                await asyncio.sleep(0.1)
        return Moved(attempt=ctx.attempt_number)

    @client.task(name="move_east", retries=2)
    @client.with_ctx
    async def move_east(_: Move, ctx: Context) -> Moved:
        return await move("shelf-west", "shelf-east", ctx)

    @client.task(name="move_west", retries=2)
    @client.with_ctx
    async def move_west(_: Move, ctx: Context) -> Moved:
        return await move("shelf-east", "shelf-west", ctx)

    return Warehouse(
        pick_parcel=pick_parcel,
        pack_parcel=pack_parcel,
        ship_parcel=ship_parcel,
        weigh_parcel=weigh_parcel,
        move_east=move_east,
        move_west=move_west,
    )
