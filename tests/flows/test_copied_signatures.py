"""A signature that became part of a flow was copied: its key reaches the copy, or the error names the keys."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from mageflow.errors import IllegalTransitionError, SignatureCopiedError
from mageflow.flows import Flows
from mageflow.signatures import Status, SwarmConfig
from mageflow.store import MemberPath, Store
from mageflow.types import DispatchRun
from tests.flows.conftest import echo
from tests.flows.fake_hatchet import FakeHatchet, FakeWorker
from tests.flows.test_workers import counted, ended, make_observed, observed  # noqa: F401 - a fixture  # noqa: F401 - fixtures


def ran(working: FakeWorker) -> Counter[str]:
    """How often each task function has run."""
    counts: Counter[str] = Counter()
    for each, times in working.started.items():
        counts[each.rpartition(":")[2]] += times
    return counts


async def fail(message: dict[str, Any]) -> None:
    raise ValueError("no good")


async def test_a_signature_that_became_a_step_is_suspended_in_its_chain(
    flows: Flows, hatchet: FakeHatchet, worker: Any
) -> None:
    """The step waits until the signature is resumed, and then runs once."""
    signature = await flows.creation.sign("two", number=2)
    chain = await flows.creation.chain(["one", signature])
    working = worker(one=echo, two=echo)
    assert await signature.suspend(by="ada") is Status.SUSPENDED
    await flows.start(chain)
    await working.drain()
    assert hatchet.by_task() == {"one": 1}
    assert (await flows.load(MemberPath(1).key(chain.key))).status is Status.SUSPENDED
    assert (await flows.load(signature.key)).status is Status.SUSPENDED
    assert await signature.resume() is Status.PENDING
    await working.drain()
    assert hatchet.by_task() == {"one": 1, "two": 1}
    assert (await flows.load(chain.key)).status is Status.DONE


async def test_a_signature_that_became_an_item_is_suspended_in_its_swarm(
    flows: Flows, hatchet: FakeHatchet, worker: Any
) -> None:
    """Given when the swarm is made, or added later; the others go on."""
    first, second = await flows.creation.sign("one", a=1), await flows.creation.sign("two", a=1)
    swarm = await flows.creation.swarm([first, "three"], config=SwarmConfig(max_concurrency=9))
    await flows.start(swarm)
    await swarm.add(["three", second])
    await swarm.close()
    await second.suspend()
    await flows.lifecycle.suspend(first.key)
    working = worker(one=echo, two=echo, three=echo)
    await working.drain()
    assert ran(working) == {"three": 2}
    await first.resume()
    await second.resume()
    await working.drain()
    assert ran(working) == {"three": 2, "one": 1, "two": 1}
    assert (await flows.load(swarm.key)).status is Status.DONE


@pytest.mark.parametrize("where", ["of a flow", "of a step", "of a signature"])
async def test_a_signature_that_became_a_callback_is_suspended_there(
    flows: Flows, hatchet: FakeHatchet, worker: Any, where: str
) -> None:
    """Also where the signature that has the callback was copied itself."""
    callback = await flows.creation.sign("callback")
    step = await flows.creation.sign("one", success_callbacks=[callback])
    chains = {
        "of a flow": lambda: flows.creation.chain(["one", "two"], success=callback),
        "of a step": lambda: flows.creation.chain([step, "two"]),
        "of a signature": lambda: flows.creation.chain(["two", "two"]),
    }
    if where == "of a flow":
        await flows.lifecycle.remove(step.key)
    chain = await chains[where]()
    await callback.suspend()
    await flows.start(chain)
    await hatchet.dispatch([DispatchRun("one", "{}", step.key, flows.new_run_key(step))])
    working = worker(one=echo, two=echo, callback=echo)
    await working.drain()
    assert ran(working)["callback"] == 0
    await callback.resume()
    await working.drain()
    assert ran(working)["callback"] == (2 if where == "of a step" else 1)


async def test_a_callback_of_a_derived_signature_is_another_one(flows: Flows) -> None:
    """Both have it, and either may run: the error names the callback of the first and of the step."""
    callback = await flows.creation.sign("callback")
    first = await flows.creation.sign("one", success_callbacks=[callback])
    chain = await flows.creation.chain([await flows.creation.sign(first, number=1), "two"])
    with pytest.raises(SignatureCopiedError) as caught:
        await callback.suspend()
    assert caught.value.copies == (f"{first.key}#.s0", f"{chain.key}#0.s0")


async def test_the_key_of_a_callback_reaches_the_copy_of_its_signature(
    flows: Flows, hatchet: FakeHatchet, worker: Any
) -> None:
    """``TaskSignature.error_callbacks`` names a callback; its signature became a step."""
    step = await flows.creation.sign("one", error_callbacks=["callback"])
    chain = await flows.creation.chain([step, "two"])
    await flows.lifecycle.suspend(step.error_callbacks[0])
    await flows.start(chain)
    working = worker(one=fail, two=echo, callback=echo)
    await working.drain()
    assert ran(working) == {"one": 1}
    await flows.lifecycle.resume(step.error_callbacks[0])
    await working.drain()
    assert ran(working) == {"one": 1, "callback": 1}


async def test_an_interrupt_reaches_the_step_that_runs(flows: Flows, hatchet: FakeHatchet, worker: Any) -> None:
    """The chain ends as cancelled; before the step is reached the error names the step, and nothing is changed."""
    signature = await flows.creation.sign("two")
    chain = await flows.creation.chain(["one", signature])

    async def body(message: dict[str, Any]) -> None:
        assert await signature.interrupt(why="wrong file") is Status.INTERRUPTED

    with pytest.raises(IllegalTransitionError, match=r"#1.*it is pending"):
        await signature.interrupt()
    assert (await flows.load(signature.key)).status is Status.PENDING
    await flows.start(chain)
    await worker(one=echo, two=body).drain()
    assert (await flows.load(chain.key)).status is Status.CANCELLED
    assert (await flows.load(MemberPath(1).key(chain.key))).status is Status.INTERRUPTED


async def test_of_several_copies_the_error_names_each_and_nothing_is_changed(
    flows: Flows, hatchet: FakeHatchet, worker: Any
) -> None:
    """One signature may be part of many flows. What has ended is no longer named."""
    signature = await flows.creation.sign("one")
    chain = await flows.creation.chain([signature, "two"])
    swarm = await flows.creation.swarm(["two", signature], closed=True)
    keys = (f"{chain.key}#0", f"{swarm.key}#1")
    for action in ("suspend", "resume", "interrupt"):
        with pytest.raises(SignatureCopiedError, match=f"cannot {action}") as caught:
            await getattr(signature, action)()
        assert caught.value.copies == keys
        assert not caught.value.has_more
        assert all(key in str(caught.value) for key in keys)
    assert (await flows.load(signature.key)).status is Status.PENDING
    await flows.start(chain)
    working = worker(one=echo, two=echo)
    await working.drain()
    await signature.suspend()  # the step of the chain is done: only the item is left
    await flows.start(swarm)
    await working.drain()
    assert ran(working) == {"one": 1, "two": 2}
    await signature.resume()
    await working.drain()
    assert ran(working) == {"one": 2, "two": 2}


async def test_a_signature_in_thousands_of_items_names_the_last(flows: Flows, store: Store) -> None:
    """The list is bounded, and says that there are more."""
    signature = await flows.creation.sign("one")
    swarm = await flows.creation.swarm([signature] * 1000)
    await swarm.add([signature] * 3)
    with pytest.raises(SignatureCopiedError, match="and older ones") as caught:
        await signature.suspend()
    assert caught.value.copies == tuple(f"{swarm.key}#{index}" for index in range(971, 1003))
    assert caught.value.has_more


async def test_own_runs_are_suspended_together_with_the_copy(flows: Flows, hatchet: FakeHatchet, worker: Any) -> None:
    """Nothing that was made from the signature starts."""
    signature = await flows.creation.sign("one")
    swarm = await flows.creation.swarm([signature.key], closed=True)
    await signature.suspend()
    await flows.start(swarm)
    await hatchet.dispatch([DispatchRun("one", "{}", signature.key, flows.new_run_key(signature))])
    working = worker(one=echo)
    await working.drain()
    assert working.started.total() == 0
    await signature.resume()
    await working.drain()
    assert ran(working) == {"one": 2}


async def test_a_member_that_can_never_begin_is_refused(flows: Flows, worker: Any) -> None:
    """A later step of a failed chain, and a callback of the other outcome: ``suspended`` would say what is not so."""
    step = await flows.creation.sign("one", success_callbacks=["callback"])
    last = await flows.creation.sign("two")
    chain = await flows.creation.chain([step, last], success="callback")
    await flows.start(chain)
    await worker(one=fail, two=echo, callback=echo).drain()
    for key in (f"{chain.key}#1", f"{chain.key}#0.s0", f"{chain.key}#.s0"):
        for act in (flows.lifecycle.suspend, flows.lifecycle.resume):
            with pytest.raises(IllegalTransitionError, match="it is failed"):
                await act(key)
    assert await last.suspend() is Status.SUSPENDED  # its copy is over; this holds runs of its own


async def test_a_damaged_list_of_copies_is_a_typed_error(flows: Flows, store: Store) -> None:
    """The next copy begins a new list."""
    from mageflow.errors import SignatureInvalidError

    signature = await flows.creation.sign("one")
    for damage in ("[", "[]", "7", '{"keys":7,"more":true}', '{"keys":[1]}', "null"):
        await store.port.command("HSET", signature.key, "copies", damage, operation="test")
        with pytest.raises((SignatureInvalidError, SignatureCopiedError)):
            await signature.suspend()
    chain = await flows.creation.chain([signature, "two"])
    assert await signature.suspend() is Status.SUSPENDED
    assert (await flows.load(f"{chain.key}#0")).status is Status.SUSPENDED


async def test_a_suspended_signature_holds_its_step_on_a_real_worker(observed: Any, mageflow_worker: Any) -> None:  # noqa: F811
    """Over the client, with Hatchet's protocol in between."""
    client = observed.client

    @client.task(name="pack")
    async def pack(msg: dict[str, Any]) -> dict[str, Any]:
        return {"packed": True}

    @client.task(name="ship")
    async def ship(msg: dict[str, Any]) -> dict[str, Any]:
        return {"shipped": True}

    mageflow_worker.in_process(client, "copies", workflows=[pack, ship])
    signature = await client.sign(ship, number=1)
    chain = await client.chain([pack, signature])
    assert await client.suspend(signature, by="ada") is Status.SUSPENDED
    await chain.aio_run_no_wait()
    async with asyncio.timeout(60):
        while (await client.load_signature(chain.key)).step < 1:
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)
    assert (await client.load_signature(chain.key)).status is Status.ACTIVE
    assert (await client.load_signature(chain.steps[1])).status is Status.SUSPENDED
    await client.resume(signature)
    assert (await ended(client, chain.key)).status is Status.DONE
