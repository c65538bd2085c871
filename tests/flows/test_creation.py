"""A retry finds the records that the attempt before it created."""

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import pytest

from mageflow.flows import Flows
from mageflow.interceptors import Attempt, TaskInfo, current_attempt
from mageflow.signatures import Status, SwarmSignature
from mageflow.store import Store
from tests.flows.fake_hatchet import FakeHatchet
from tests.store.counting import RoundTrips


@contextmanager
def attempt(number: int, step: str = "step") -> Generator[None]:
    """An attempt of a task."""
    made = Attempt(
        TaskInfo("parent", "parent", 60.0, 3), "run", step, "worker", number, 4, {}, is_cancelled=lambda: False
    )
    token = current_attempt.set(made)
    try:
        yield
    finally:
        current_attempt.reset(token)


async def _create(flows: Flows) -> list[str]:
    signature = await flows.creation.sign("one", x=1)
    return [
        signature.key,
        (await flows.creation.sign("one", x=1)).key,
        (await flows.creation.sign("one", x=2)).key,
        (await flows.creation.chain(["one", signature], name="c")).key,
        (await flows.creation.swarm(["one"] * 3, name="s")).key,
    ]


async def test_a_retry_finds_what_the_first_attempt_created(flows: Flows, round_trips: RoundTrips) -> None:
    """The same content at the same count has the same key; twice in one attempt are two records."""
    with attempt(1):
        first = await _create(flows)
    with attempt(2):
        assert await _create(flows) == first
    assert len(set(first)) == 5


async def test_order_does_not_matter_only_content_does(flows: Flows) -> None:
    """A retry in another order finds records of the same content and creates the others."""
    with attempt(1):
        first = [(await flows.creation.sign("one", x=index)).key for index in range(3)]
    with attempt(2):
        other = (await flows.creation.sign("one", x=99)).key
        again = [(await flows.creation.sign("one", x=index)).key for index in (2, 0, 1)]
    assert again == [first[2], first[0], first[1]]
    assert other not in first


async def test_other_runs_and_other_kinds_never_share(flows: Flows) -> None:
    """Another run of the same task, or code outside a task, creates its own records."""
    with attempt(1):
        first = (await flows.creation.sign("one")).key
    with attempt(1, step="other"):
        assert (await flows.creation.sign("one")).key != first
    assert (await flows.creation.sign("one")).key != (await flows.creation.sign("one")).key


async def test_a_record_that_a_retry_finds_keeps_its_state(flows: Flows, hatchet: FakeHatchet) -> None:
    """A chain that the first attempt started is started already; starting it again starts nothing."""
    for number in (1, 2):
        with attempt(number):
            chain = await flows.creation.chain(["one", "two"])
            await flows.start(chain)
    assert chain.status is Status.ACTIVE
    assert len(hatchet.runs) == 1


async def test_a_retry_adds_no_item_twice(flows: Flows) -> None:
    """An addition to a swarm is recognised by its content too."""
    swarm = await flows.creation.swarm(["one"])
    added = []
    for number in (1, 2):
        with attempt(number):
            added.append((await swarm.add(["two", "three"]), await swarm.add("two"), await swarm.add("two")))
    assert added[0] == added[1]
    loaded = await flows.load(swarm.key)
    assert isinstance(loaded, SwarmSignature)
    assert loaded.total == 5


async def test_a_retry_that_runs_a_signature_again_runs_no_body_again(flows: Flows) -> None:
    """The key of the run is derived like the key of a record."""
    signature = await flows.creation.sign("one")
    keys = []
    for number in (1, 2):
        with attempt(number):
            keys.append([flows.new_run_key(signature), flows.new_run_key(signature)])
    assert keys[0] == keys[1]
    assert len(set(keys[0])) == 2


async def test_creating_costs_one_round_trip_at_any_size(
    flows: Flows, round_trips: RoundTrips, hatchet: FakeHatchet
) -> None:
    """From names, and from signatures made in this process; prints the table of round trips."""
    await _create(flows)
    step = await flows.creation.sign("one", success_callbacks=["two"], error_callbacks=["three"])
    makers: dict[str, Callable[[], Any]] = {
        "sign, two callbacks": lambda: flows.creation.sign("one", success_callbacks=[step], error_callbacks=["x"]),
        "chain of 3 names": lambda: flows.creation.chain(["one", "two", "three"]),
        "chain of 3 signatures": lambda: flows.creation.chain([step, step, step]),
        "chain of 100": lambda: flows.creation.chain(["one"] * 100),
        "swarm of 10": lambda: flows.creation.swarm([step] * 10),
        "swarm of 10,000": lambda: flows.creation.swarm(["one"] * 10_000),
    }
    print()
    for what, make in makers.items():
        round_trips.reset()
        await make()
        print(f"{what:<24}{round_trips.total:>3}")
        assert round_trips.total == 1, what


async def test_a_member_given_by_key_costs_one_more(flows: Flows, round_trips: RoundTrips) -> None:
    """Its definition is copied, with its callbacks."""
    step = await flows.creation.sign(
        "one", x=1, success_callbacks=[await flows.creation.sign("two", error_callbacks=["three"])]
    )
    await flows.load(step.key)
    round_trips.reset()
    chain = await flows.creation.chain([step.key, await flows.load(step.key)])
    assert round_trips.by_operation == {"load": 1, "definitions": 2, "create": 1}
    copied = await flows.load(chain.steps[0])
    assert (copied.kwargs, len(copied.success_callbacks)) == ({"x": 1}, 1)
    callback = await flows.load(copied.success_callbacks[0])
    assert len(callback.error_callbacks) == 1


async def test_every_key_has_the_ttl_of_its_kind(flows: Flows, store: Store, hatchet: FakeHatchet) -> None:
    """Active records live a day and ended ones an hour, unless the settings say otherwise."""
    chain = await flows.creation.chain(["one", "two"])
    for key in await store.port.command("KEYS", f"{chain.key}*"):
        assert 86_000 < await store.port.command("TTL", key) <= 86_400
    await flows.start(chain)
    await chain.interrupt()
    await asyncio.sleep(0)
    assert await store.port.command("TTL", chain.key) <= 86_400


@pytest.mark.parametrize("count", [3, 2000])
async def test_members_of_a_swarm_can_be_loaded_alone(flows: Flows, count: int) -> None:
    """Each item has a key, and loading it does not load the swarm."""
    swarm = await flows.creation.swarm(
        [await flows.creation.sign("one", n=index) for index in range(3)] + ["one"] * (count - 3)
    )
    item = await flows.load(f"{swarm.key}#2")
    assert (item.kwargs, item.status) == ({"n": 2}, Status.PENDING)
