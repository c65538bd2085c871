"""What the caller's object holds is what the body gets, on real workers and a real Valkey."""

from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest
from hatchet_sdk import Context, EmptyModel, Hatchet
from pydantic import BaseModel, ConfigDict, Field

from tests.integration.conftest import Observed


def unique() -> str:
    return uuid4().hex[:8]


class Inner(BaseModel):
    id: str = Field(default_factory=unique)
    x: int = 1


class Message(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    id: str = Field(default_factory=unique)
    base: dict[str, int] = {}
    inner: Inner = Field(default_factory=Inner)
    many: list[Inner] = []
    number: int = Field(default=0, alias="orderNumber")


@dataclass
class Parcel:
    number: int
    id: str = field(default_factory=unique)


@pytest.fixture
def signed(make_observed: Any, mageflow_redis: Any) -> Observed:
    """A client with a real Valkey."""
    return make_observed(mageflow_redis.url)


async def test_a_message_arrives_as_the_plain_client_sends_it(signed: Observed, mageflow_worker: Any) -> None:
    """Through a signature, a chain, a nested chain and both messages of a swarm; on every attempt; by name too."""
    client = signed.client
    attempts: list[str] = []

    @client.task(name="arrives")
    async def arrives(msg: Message) -> dict[str, Any]:
        return msg.model_dump()

    @client.task(name="arrives-late", retries=1)
    async def arrives_late(msg: Message) -> dict[str, Any]:
        attempts.append(msg.id)
        if len(attempts) == 1:
            raise ValueError("once more")
        return msg.model_dump()

    @client.task(name="arrives-parcel")
    async def parcel(msg: Parcel) -> dict[str, Any]:
        return {"number": msg.number, "id": msg.id}

    @client.task(name="passes")
    async def passes(msg: dict[str, Any]) -> dict[str, Any]:
        return msg["mageflow_results"]

    mageflow_worker.in_process(client, "messages", workflows=[arrives, arrives_late, parcel, passes], slots=10)
    message = Message(many=[Inner(x=5)], number=7)
    message.base["changed"] = 1
    held = message.model_dump()
    assert await arrives.aio_run(message) == held

    assert await (await client.sign(arrives)).aio_run(message) == held
    assert await (await client.sign("arrives")).aio_run(message) == held
    assert await (await client.sign(arrives_late)).aio_run(message) == held
    assert attempts == [message.id] * 2

    assert await (await client.chain([arrives, passes])).aio_run(message) == held
    nested = await client.chain([await client.chain([arrives, passes]), passes])
    assert await nested.aio_run(message) == held

    swarm = await client.swarm([arrives], closed=False)
    own = Message(number=8)
    await swarm.add(arrives, own)
    await swarm.close()
    whole, item = await swarm.aio_run(message)
    assert whole == held
    # What the caller set in the message of the swarm stays, and the item's own message wins over it.
    assert item == {**held, "id": own.id, "base": {"changed": 1}, "inner": own.inner.model_dump(), "number": 8}

    box = Parcel(3)
    assert await (await client.sign(parcel)).aio_run(box) == {"number": 3, "id": box.id}


async def test_bound_values_fill_what_the_caller_did_not_set(signed: Observed, mageflow_worker: Any) -> None:
    """The values of the flow are weaker than those of the signature, and both than what the caller set."""
    client = signed.client

    @client.task(name="filled")
    async def filled(msg: Message) -> dict[str, Any]:
        return msg.model_dump()

    @client.task(name="passes-filled")
    async def passes(msg: dict[str, Any]) -> dict[str, Any]:
        return msg["mageflow_results"]

    mageflow_worker.in_process(client, "filled", workflows=[filled, passes])
    message = Message(inner=Inner(x=3))
    signature = await client.sign(filled, id="signature", inner={"id": "signature", "x": 9})
    expected = {**message.model_dump(), "id": "signature", "inner": {"id": "signature", "x": 3}}
    assert await signature.aio_run(message) == expected

    chain = await client.chain([signature, passes], id="flow", orderNumber=5)
    assert await chain.aio_run(message) == {**expected, "number": 5}
    assert (await client.load_signature(chain.steps[0])).kwargs == {
        "id": "signature",
        "inner": {"id": "signature", "x": 9},
    }
    inner = await client.chain([filled, passes], id="inner")
    outer = await client.chain([inner, passes], id="outer", number=6)
    assert await outer.aio_run(message) == {**message.model_dump(), "id": "inner", "number": 6}
    again = await client.chain([filled, passes], id="flow", orderNumber=5)
    explicit = Message(id="set", number=4)
    assert await again.aio_run(explicit) == explicit.model_dump()


async def test_a_function_for_the_plain_client_runs_as_there(signed: Observed, mageflow_worker: Any) -> None:
    """No input type is made of its annotation, so an input that lacks a field reaches it as with the plain client."""
    client = signed.client
    plain = Hatchet()

    class Required(BaseModel):
        n: int

    async def function(input: Required, ctx: Context) -> dict[str, Any]:
        return {"kind": type(input).__name__, "n": getattr(input, "n", None)}

    ours = client.task(name="plain-ours")(function)
    theirs = plain.task(name="plain-theirs")(function)
    mageflow_worker.in_process(client, "as-plain", workflows=[ours, theirs])
    for message in (EmptyModel(), EmptyModel(n=1)):
        expected = await theirs.aio_run(message)
        assert expected == {"kind": "EmptyModel", "n": getattr(message, "n", None)}
        assert await ours.aio_run(message) == expected
        assert await (await client.sign(ours)).aio_run(message) == expected
