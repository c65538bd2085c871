"""Bound values of what has not begun can be changed, atomically."""

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel

from mageflow.errors import FlowDefinitionError, IllegalTransitionError, SignatureNotFoundError
from mageflow.store import MemberPath
from tests.flows.conftest import echo


class Order(BaseModel):
    number: int = 0
    color: str = ""


async def test_values_are_replaced_or_added_and_arrive(flows: Any, hatchet: Any, worker: Any) -> None:
    """Of a step, and of the chain for all steps; the others stay, and so do callbacks and identifiers."""
    signature = await flows.creation.sign(
        "one", task_identifiers={"a": 1}, number=1, color="red", error_callbacks=["two"]
    )
    chain = await flows.creation.chain([signature, "two"], success="three", size=1)

    await flows.rebinding.rebind(MemberPath(0).key(chain.key), {"number": 2})
    await flows.rebinding.rebind(chain.key, {"size": 5})
    await flows.rebinding.rebind(MemberPath().callback("success", 0).key(chain.key), {"late": True})
    await flows.start(chain)
    await worker(one=echo, two=echo, three=echo).drain()

    assert hatchet.inputs("one") == [{"number": 2, "color": "red", "size": 5}]
    [second] = hatchet.inputs("two")
    assert second["size"] == 5
    [third] = hatchet.inputs("three")
    assert third["late"] is True
    assert (await flows.load(signature.key)).kwargs == {"number": 1, "color": "red"}  # the chain has a copy
    await flows.rebinding.rebind(signature.key, {"number": 3})
    loaded = await flows.load(signature.key)
    assert (loaded.kwargs, loaded.task_identifiers) == ({"number": 3, "color": "red"}, {"a": 1})
    assert len(loaded.error_callbacks) == 1


async def test_what_has_begun_is_left_alone(flows: Any, worker: Any) -> None:
    """A started flow and a sent step are refused with their status; a later step can still be changed."""
    chain = await flows.creation.chain(["one", "two"])
    await flows.start(chain)
    for key in (chain.key, MemberPath(0).key(chain.key)):
        with pytest.raises(IllegalTransitionError, match="cannot rebind"):
            await flows.rebinding.rebind(key, {"number": 2})
    await flows.rebinding.rebind(MemberPath(1).key(chain.key), {"number": 2})
    await worker(one=echo, two=echo).drain()
    with pytest.raises(IllegalTransitionError, match="it is done"):
        await flows.rebinding.rebind(MemberPath(1).key(chain.key), {"number": 3})
    await flows.lifecycle.remove(chain.key)
    with pytest.raises(SignatureNotFoundError):
        await flows.rebinding.rebind(chain.key, {"number": 3})


async def test_unknown_fields_are_refused(flows: Any, hatchet: Any) -> None:
    """As when they are bound."""
    hatchet.models["one"] = Order
    chain = await flows.creation.chain(["one", "one"])
    inner = await flows.creation.swarm([chain])
    for key in (chain.key, MemberPath(0).key(chain.key)):
        with pytest.raises(FlowDefinitionError, match="did you mean 'number'"):
            await flows.rebinding.rebind(key, {"nummber": 2})
    with pytest.raises(FlowDefinitionError, match="is a nested flow: rebind"):
        await flows.rebinding.rebind(MemberPath(0).key(inner.key), {"number": 2})


async def test_changes_at_one_time_are_all_kept(flows: Any) -> None:
    """Eight changes of different values at once: none is lost."""
    signature = await flows.creation.sign("one")

    await asyncio.gather(*(flows.rebinding.rebind(signature.key, {f"n{number}": number}) for number in range(8)))

    assert (await flows.load(signature.key)).kwargs == {f"n{number}": number for number in range(8)}
