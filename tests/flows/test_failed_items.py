"""What a user can ask about failures: the failed items of a swarm, and the failed input in an error callback."""

import asyncio
import itertools
from typing import Any

import pytest

from mageflow.errors import ConfigurationError, FlowDefinitionError, SignatureNotFoundError
from mageflow.flows import Flows
from mageflow.signatures import Status, SwarmConfig, SwarmSignature
from mageflow.store import Store
from tests.flows.conftest import echo
from tests.flows.fake_hatchet import FakeHatchet
from tests.store.counting import RoundTrips


async def odd_fails(message: dict[str, Any]) -> int:
    if message["n"] % 2:
        raise ValueError(f'odd {message["n"]} "status":"done"')
    return message["n"]


async def fail(message: dict[str, Any]) -> None:
    raise ValueError("no good")


async def swarm_of(flows: Flows, count: int, **options: Any) -> SwarmSignature:
    tasks = [await flows.creation.sign("odd_fails", n=index) for index in range(count)]
    return await flows.creation.swarm(tasks, closed=True, **options)


async def test_failed_items_have_index_key_task_error_and_input(flows: Flows, worker: Any) -> None:
    """The swarm itself succeeded. The input is that of the run: bound values and the message."""
    swarm = await swarm_of(flows, 5, color="red")
    await flows.start(swarm, {"m": 1})
    await worker(odd_fails=odd_fails).drain()
    items = await swarm.failed_items()
    assert [(each.index, each.task, each.flow_key, each.status) for each in items] == [
        (1, "odd_fails", "", Status.FAILED),
        (3, "odd_fails", "", Status.FAILED),
    ]
    assert [each.input for each in items] == [{"m": 1, "n": 1, "color": "red"}, {"m": 1, "n": 3, "color": "red"}]
    for each in items:
        assert each.error is not None
        assert (each.error.type, each.error.message.split()[:2]) == ("ValueError", ["odd", str(each.index)])
        assert each.last_run is not None
        loaded = await flows.load(each.key)
        assert (loaded.status, loaded.last_run) == (Status.FAILED, each.last_run)
    ended = await flows.load(swarm.key)
    assert isinstance(ended, SwarmSignature)
    assert ended.status is Status.DONE
    assert ended.item_keys == tuple(f"{swarm.key}#{index}" for index in range(5))


async def test_an_item_text_that_looks_like_a_failure_is_none(flows: Flows, worker: Any) -> None:
    """The script looks for words in stored text, and an input or error may hold the same words."""
    step = await flows.creation.sign("echo", error_callbacks=["report"])
    swarm = await flows.creation.swarm([step, "fail"], closed=True)
    await flows.start(swarm, {"text": '{"status":"failed"}'})
    await worker(echo=echo, fail=fail, report=echo).drain()
    assert [each.index for each in await swarm.failed_items()] == [1]


async def test_failed_items_come_in_pages_of_bounded_size(flows: Flows, worker: Any, round_trips: RoundTrips) -> None:
    """One call lists what it is asked for, and one round trip looks at 10,000 items."""
    swarm = await swarm_of(flows, 40)
    await flows.start(swarm)
    await worker(odd_fails=odd_fails).drain()
    await swarm.failed_items(limit=1)  # the server has the script now
    round_trips.reset()
    first = await swarm.failed_items(limit=15)
    rest = await swarm.failed_items(first=first[-1].index + 1, limit=15)
    assert [each.index for each in (*first, *rest)] == list(range(1, 40, 2))
    assert round_trips.by_operation == {"failures": 2}
    for wrong in ({"limit": 0}, {"limit": 10_001}, {"first": -1}, {"first": 10**30}):
        with pytest.raises(ConfigurationError, match="first is from 0"):
            await swarm.failed_items(**wrong)


async def test_a_large_swarm_is_read_in_several_round_trips(flows: Flows, round_trips: RoundTrips) -> None:
    """Redis serves no other client while a script runs."""
    swarm = await flows.creation.swarm(["echo"] * 20_001, config=SwarmConfig(max_concurrency=20_001), closed=True)
    await flows.start(swarm)
    await flows.lifecycle.interrupt(f"{swarm.key}#20000", why="enough")
    await swarm.failed_items(limit=1)  # the server has the script now
    round_trips.reset()
    [item] = await swarm.failed_items()
    assert (item.index, item.status) == (20_000, Status.INTERRUPTED)
    assert item.error is not None
    assert (item.error.type, item.error.message) == ("TaskInterrupted", "enough")
    assert round_trips.by_operation == {"failures": 3}


async def test_large_errors_are_read_in_several_round_trips(flows: Flows, worker: Any, round_trips: RoundTrips) -> None:
    """A reply is bounded in bytes too; nothing is left out."""

    async def long_error(message: dict[str, Any]) -> None:
        raise ValueError("x" * 32_000)

    swarm = await flows.creation.swarm(["long"] * 300, closed=True)
    await flows.start(swarm)
    await worker(long=long_error).drain()
    await swarm.failed_items(limit=1)  # the server has the script now
    round_trips.reset()
    assert [each.index for each in await swarm.failed_items()] == list(range(300))
    assert 2 <= round_trips.by_operation["failures"] <= 4


async def test_a_nested_flow_that_failed_is_listed_with_its_key(flows: Flows, worker: Any) -> None:
    """Its own key leads to its steps."""
    chain = await flows.creation.chain(["echo", "fail"])
    swarm = await flows.creation.swarm([chain, "echo"], closed=True)
    await flows.start(swarm, {"n": 1})
    await worker(echo=echo, fail=fail).drain()
    [item] = await swarm.failed_items()
    assert (item.index, item.task, item.flow_key, item.input, item.last_run) == (0, "", chain.key, None, None)
    assert item.error is not None
    assert item.error.task == "fail"


async def test_failed_items_are_read_while_the_swarm_runs_and_not_after_its_end(flows: Flows, worker: Any) -> None:
    """It may expire or be removed; a chain has none."""
    swarm = await swarm_of(flows, 4, config=SwarmConfig(max_concurrency=2, refill_linger_ms=0))
    await flows.start(swarm)
    one = worker(odd_fails=odd_fails)
    assert await swarm.failed_items() == ()
    await one.one()
    await one.one()
    assert [each.index for each in await swarm.failed_items()] == [1]
    await swarm.remove()
    with pytest.raises(SignatureNotFoundError):
        await swarm.failed_items()
    chain = await flows.creation.chain(["echo", "fail"])
    with pytest.raises(FlowDefinitionError, match="not a swarm"):
        await flows.swarms.failed_items(chain.key)


# -- the input that failed, in an error callback ---------------------------------------------------------------------


async def error_of(hatchet: FakeHatchet, task: str = "report") -> dict[str, Any]:
    [received] = hatchet.inputs(task)
    return received["mageflow_error"]


async def test_an_error_callback_of_a_chain_gets_the_input_of_the_step_that_failed(
    flows: Flows, hatchet: FakeHatchet, worker: Any
) -> None:
    """Beside the message of the chain."""

    async def price(message: dict[str, Any]) -> Any:
        return {"price": 12}

    chain = await flows.creation.chain(["price", await flows.creation.sign("fail", color="red")], error=["report"])
    await flows.start(chain, {"order": 17})
    await worker(price=price, fail=fail, report=echo).drain()
    error = await error_of(hatchet)
    assert error["original_message"] == {"order": 17}
    assert error["failed_input"] == {"color": "red", "mageflow_results": {"price": 12}}


async def test_an_error_callback_of_a_swarm_gets_the_input_of_the_last_failed_item(
    flows: Flows, hatchet: FakeHatchet, worker: Any
) -> None:
    """The item whose error it gets."""
    tasks = [await flows.creation.sign("odd_fails", n=index) for index in (2, 5, 7, 9)]
    swarm = await flows.creation.swarm(
        tasks, config=SwarmConfig(stop_after_n_failures=2), error_callbacks=["report"], closed=True
    )
    await flows.start(swarm)
    await worker(odd_fails=odd_fails, report=echo).drain()
    error = await error_of(hatchet)
    assert error["message"].startswith("odd 7")
    assert error["failed_input"] == {"n": 7}


async def test_the_failed_input_comes_up_from_a_nested_flow(flows: Flows, hatchet: FakeHatchet, worker: Any) -> None:
    """Through two levels, to the flow that has the callback."""
    inner = await flows.creation.chain(["echo", await flows.creation.sign("fail", deep=True)])
    middle = await flows.creation.swarm([inner], closed=True)
    chain = await flows.creation.chain(["echo", middle], error=["report"])
    await flows.start(chain, {"order": 17})
    await worker(echo=echo, fail=fail, report=echo).drain()
    error = await error_of(hatchet)
    assert error["failed_input"] == {"deep": True, "mageflow_results": {"mageflow_results": {"order": 17}}}
    assert error["task"] == "fail"


async def test_an_interrupted_flow_has_no_failed_input(
    flows: Flows, store: Store, hatchet: FakeHatchet, worker: Any
) -> None:
    """Also if an item had failed before; and a flow without error callbacks stores none."""
    config = SwarmConfig(max_concurrency=1, refill_linger_ms=0)
    swarm = await flows.creation.swarm(["fail", "echo"], config=config, error_callbacks=["report"], closed=True)
    await flows.start(swarm, {"n": 1})
    one = worker(fail=fail, echo=echo, report=echo)
    await one.one()
    assert await store.port.command("HGET", swarm.key, "failed_input") == '{"n": 1}'
    await swarm.interrupt(why="enough")
    await one.drain()
    error = await error_of(hatchet)
    assert (error["type"], error["failed_input"], error["original_message"]) == ("TaskInterrupted", None, {"n": 1})
    chain = await flows.creation.chain(["echo", "fail"])
    await flows.start(chain, {"n": 1})
    await one.drain()
    assert await store.port.command("HEXISTS", chain.key, "failed_input") == 0


async def test_a_failed_input_that_is_too_large_is_left_out(flows: Flows, hatchet: FakeHatchet, worker: Any) -> None:
    """The callback itself must arrive."""
    chain = await flows.creation.chain(["fail", "echo"], error=["report"])
    await flows.start(chain, {"text": "x" * 1_100_000})
    await worker(fail=fail, report=echo).drain()
    error = await error_of(hatchet)
    assert error["failed_input"] is None
    assert len(error["original_message"]["text"]) == 1_100_000


async def test_the_items_shown_are_of_one_instant(flows: Flows, worker: Any) -> None:
    """Items that fail while others look: what is listed never gets less, and has its error."""
    swarm = await swarm_of(flows, 60, config=SwarmConfig(max_concurrency=60))
    await flows.start(swarm)
    seen: list[tuple[int, ...]] = []

    async def look() -> None:
        while len(seen) < 2 or len(seen[-1]) < 30:
            items = await swarm.failed_items()
            assert all(each.error is not None for each in items)
            seen.append(tuple(each.index for each in items))

    async with asyncio.timeout(60):
        await asyncio.gather(look(), worker(odd_fails=odd_fails).drain())
    assert all(set(before) <= set(after) for before, after in itertools.pairwise(seen))
