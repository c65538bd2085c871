"""Read by a type checker, never executed: every line marked ``refused`` must be an error, and no other."""

from datetime import timedelta

from hatchet_sdk import Hatchet
from pydantic import BaseModel

from mageflow import Mageflow


class Message(BaseModel):
    x: int = 0


class Other(BaseModel):
    z: str = ""


client = Mageflow(Hatchet())
Mageflow("redis://localhost")  # refused
client.stagger_execution(wait_delta=10)  # refused
client.task(name="t", retrys=3)  # refused


@client.task(name="inferred")
async def inferred(msg: Message) -> Other:
    return Other()


@client.task(name="wrong", input_validator=Other)  # refused
async def wrong(msg: Message) -> Other:
    return Other()


@client.task(name="returns-int")  # refused
async def returns_int(msg: Message) -> int:
    return 1


inferred.run(Other())  # refused
client.stagger_execution(timedelta(seconds=1))(3)  # refused
