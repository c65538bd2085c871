"""Damaged documents in Redis: a typed error, the end of their flow, and no effect on other flows."""

import asyncio
import json
import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from mageflow.errors import SignatureError, SignatureInvalidError, SignatureVersionError
from mageflow.flows import Flows
from mageflow.signatures import RunIdentity, RunOptions, Status, SwarmConfig
from mageflow.store import AttemptOutcome, Store, describe_record, list_damaged
from mageflow.telemetry import Telemetry
from mageflow.testing.capture import capture_logs
from mageflow.types import DispatchRun
from tests.flows.admitting import admit
from tests.flows.conftest import QUICK, echo, stop, until_ended
from tests.flows.fake_hatchet import FakeHatchet, FakeWorker


@pytest.mark.parametrize(
    "damage", [("SET", "members", "x"), ("HSET", "members", "0", "{not json"), ("SET", "live", "x")]
)
async def test_a_damaged_record_does_not_keep_the_others_waiting(
    quick: Flows, hatchet: FakeHatchet, store: Store, damage: tuple[str, ...]
) -> None:
    """A reconciler logs which record is damaged and visits the next."""
    broken = await quick.creation.chain(["one", "two"])
    await quick.start(broken)
    await quick.drain()
    hatchet.queue.clear()
    command, part, *rest = damage
    if command == "SET":
        await store.port.command("DEL", f"{broken.key}:{part}")
    await store.port.command(command, f"{broken.key}:{part}", *rest)
    await store.port.command("EXPIRE", f"{broken.key}:{part}", 60)
    hatchet.is_away = True
    waiting = [await quick.creation.chain(["one", "two"]) for _ in range(4)]
    for each in waiting:
        await quick.start(each)
    hatchet.is_away = False
    await store.port.command("ZADD", store.keys.parse(broken.key).due, 0, broken.key)
    working = FakeWorker(hatchet, quick, {"one": echo, "two": echo})
    for each in waiting:
        assert await until_ended(quick, each.key, working) is Status.DONE
    with pytest.raises(SignatureInvalidError):
        await quick.settle(f"{broken.key}#0", RunIdentity("run-0"), AttemptOutcome("succeeded"))
    assert await broken.remove()
    assert await store.port.command("KEYS", f"{broken.key}*") == []


async def test_a_step_whose_definition_is_gone_fails_its_chain(
    quick: Flows, hatchet: FakeHatchet, store: Store
) -> None:
    """The chain ends, the error names the missing definition, and the error callback receives it."""
    chain = await quick.creation.chain(["one", "two"], error="callback")
    await store.port.command("HDEL", f"{chain.key}:definitions", "1")
    await quick.start(chain)
    await FakeWorker(hatchet, quick, {"one": echo, "callback": echo}).drain()
    failed = await quick.load(chain.key)
    assert failed.status is Status.FAILED
    assert failed.last_error is not None
    assert failed.last_error.type == "SignatureInvalidError"
    assert f"{chain.key}#1" in failed.last_error.message
    assert hatchet.by_task()["callback"] == 1


async def test_an_item_whose_definition_is_gone_has_failed(quick: Flows, hatchet: FakeHatchet, store: Store) -> None:
    """The other items run, its place is free, and the swarm ends."""
    swarm = await quick.creation.swarm(
        ["one"] * 5, config=SwarmConfig(max_concurrency=2, refill_linger_ms=0), closed=True
    )
    for index in (0, 3):
        await store.port.command("HDEL", f"{swarm.key}:definitions", str(index))
    await quick.start(swarm)
    assert await until_ended(quick, swarm.key, FakeWorker(hatchet, quick, {"one": echo})) is Status.DONE
    assert await quick.wait(swarm.key) == [None, {}, {}, None, {}]
    assert (await quick.load(swarm.key)).failed == 2


@pytest.mark.parametrize("path", ["", "1", "0"])
async def test_a_definition_that_does_not_validate_ends_its_flow(
    quick: Flows, hatchet: FakeHatchet, store: Store, path: str
) -> None:
    """The settlement of the step before stays, the task raises nothing, and the chain fails."""
    chain = await quick.creation.chain(["one", "two"], error="callback")
    text = await store.port.command("HGET", f"{chain.key}:definitions", path)
    if path != "0":
        await quick.start(chain)
    await store.port.command("HSET", f"{chain.key}:definitions", path, text.partition("|")[0] + "|{broken")
    if path == "0":
        await quick.start(chain)
    working = FakeWorker(hatchet, quick, {"one": echo, "two": echo, "callback": echo})
    reconciler = quick.reconciler()
    async with asyncio.timeout(60):
        while (await store.port.command("HGET", chain.key, "status")) != "failed":
            await reconciler.sweep()
            await working.drain()
            await asyncio.sleep(0.01)
    if path == "":
        with pytest.raises(SignatureInvalidError):
            await quick.load(chain.key)


async def test_damage_that_only_the_signature_shows_stops_only_a_function_that_takes_it(
    quick: Flows, store: Store
) -> None:
    """Such a function gets a typed error. Any other one runs, and its end is recorded."""
    signature = await quick.creation.sign("one")
    await store.port.command("HSET", signature.key, "created_ms", "x")
    run = RunIdentity("run-1", "task-1", "worker-1", 1)
    with pytest.raises(SignatureInvalidError):
        await admit(quick, signature.key, run)

    admission = await admit(quick, signature.key, run, wants_signature=False)
    assert (admission.verdict, admission.signature) == ("run", None)
    await quick.settle(signature.key, run, AttemptOutcome("succeeded", result_json="{}"))
    assert await store.port.command("HGET", signature.key, "status") == "done"


async def test_a_result_that_is_no_json_fails_the_step_after_it(
    quick: Flows, hatchet: FakeHatchet, store: Store
) -> None:
    """The input of the next step cannot be built: the chain fails with the reason."""
    chain = await quick.creation.chain(["one", "two"])
    await quick.start(chain)
    hatchet.is_away = True
    await FakeWorker(hatchet, quick, {"one": echo}).one()
    hatchet.is_away = False
    await store.port.command("HSET", f"{chain.key}:results", "0", "{broken")
    working = FakeWorker(hatchet, quick, {"one": echo, "two": echo})
    assert await until_ended(quick, chain.key, working) is Status.FAILED
    error = (await quick.load(chain.key)).last_error
    assert error is not None
    assert error.type == "SignatureInvalidError"


async def test_a_callback_that_fails_leaves_the_error_of_its_flow(quick: Flows, hatchet: FakeHatchet) -> None:
    """A waiter and a parent flow receive the error of the flow, not that of its callback."""

    async def fail(message: dict[str, Any]) -> None:
        raise KeyError("callback") if "mageflow_error" in message else ValueError("no good")

    chain = await quick.creation.chain(["fail", "one"], error="fail")
    signature = await quick.creation.sign("fail", error_callbacks=["fail"])
    await quick.start(chain)
    await hatchet.dispatch([DispatchRun("fail", "{}", signature.key, quick.new_run_key(signature))])
    await FakeWorker(hatchet, quick, {"fail": fail}).drain()
    assert hatchet.by_task() == {"fail": 4}
    for key in (chain.key, signature.key):
        error = (await quick.load(key)).last_error
        assert error is not None
        assert error.type == "ValueError"


DUE, TAG = "mageflow:{test/0}:due", "mageflow:{test/0}:"

DAMAGE: dict[str, tuple[str, str, tuple[Any, ...]]] = {
    "an index of another type": ("index", "SET", (DUE, "x", "EX", 600)),
    "an entry that is not UTF-8": ("entry", "ZADD", (DUE, 1, TAG.encode() + b"chain:\xff\xff0")),
    "an entry with control characters": ("entry", "ZADD", (DUE, 1, "\x1b[31mjunk\nlevel=critical")),
    "an entry of another shard": ("entry", "ZADD", (DUE, 1, "mageflow:{test/1}:chain:a1")),
    "a record of another type": ("record", "SET", (f"{TAG}chain:a0", "x", "EX", 600)),
    "a count of another type": ("index", "SET", (f"{TAG}stats:chain:active", "x", "EX", 600)),
    "items that are no counts": ("entry", "HSET", (f"{TAG}stats:items", "a0", "1,x,1e300")),
    "starts of another type": ("index", "SET", (f"{TAG}stats:started:chain", "x", "EX", 600)),
    "notes of another type": ("index", "SET", (f"{TAG}damaged", "x", "EX", 600)),
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_damage_is_put_aside_and_everything_else_goes_on(
    quick: Flows, hatchet: FakeHatchet, store: Store, damage: str
) -> None:
    """Flows of every shard that are left to the reconciler end, the counts are read, and an operator sees one note."""
    kind, command, arguments = DAMAGE[damage]
    hatchet.is_away = True
    waiting = [await quick.creation.chain(["one", "two"]) for _ in range(40)]
    for each in waiting:
        await quick.start(each)
    hatchet.is_away = False
    await store.port.command(command, *arguments)
    if kind == "record":
        await store.port.command("ZADD", DUE, 1, arguments[0])
    if command != "SET":
        await store.port.command("EXPIRE", arguments[0], 600)
    await asyncio.sleep(0.05)
    working = FakeWorker(hatchet, quick, {"one": echo, "two": echo})
    for each in waiting:
        assert await until_ended(quick, each.key, working) is Status.DONE
    census = await store.census()
    assert all(0 <= count < 100 for count in [*census.active.values(), *census.items.values()])
    await quick.reconciler().sweep()
    notes = await list_damaged(store.port, store.keys)
    assert [each.kind for each in notes] == [kind]
    assert notes[0].reason
    assert await list_damaged(store.port, store.keys, clear=True) == notes
    assert await list_damaged(store.port, store.keys) == []


async def test_damage_is_reported_once(store: Store, hatchet: FakeHatchet) -> None:
    """One warning with key and reason, one count; the same again after the notes were cleared."""
    registry = CollectorRegistry()
    telemetry = Telemetry(QUICK, registry=registry)
    observed = Store(store.port, store.keys, QUICK, telemetry.interceptor)
    flows = Flows(observed, hatchet, hatchet, QUICK, telemetry.interceptor)
    chain = await flows.creation.chain(["one", "two"])
    await flows.start(chain)
    await flows.drain()
    due = store.keys.parse(chain.key).due
    await store.port.command("HSET", f"{chain.key}:members", "0", "{not json")

    async def sweep() -> None:
        for _ in range(3):
            await asyncio.sleep(0.05)  # the run is silent for the check time
            await store.port.command("ZADD", due, 1, chain.key)
            await store.port.command("ZADD", DUE, 1, "junk")
            await flows.reconciler().sweep()

    with capture_logs() as logs:
        await sweep()
        reported = logs.named("mageflow.store.damaged")
        assert sorted((each["kind"], each["key"]) for each in reported) == [("entry", "junk"), ("record", chain.key)]
        assert all(each["reason"] and each["level"] == "warning" for each in reported)
        assert await store.port.command("ZSCORE", due, chain.key) is None
        await list_damaged(store.port, store.keys, clear=True)
        assert await store.port.command("ZSCORE", due, chain.key) is not None
        await sweep()
        assert len(logs.named("mageflow.store.damaged")) == 4
    for kind in ("record", "entry"):
        assert registry.get_sample_value("mageflow_store_damaged_total", {"kind": kind}) == 2
    await stop(flows)


def silent(**fields: Any) -> str:
    """The state of a step whose run has given no sign of life for long, with other values of some fields."""
    run_id = "11111111-1111-1111-1111-111111111111"
    state = {"status": "sent", "epoch": 0, "run_id": run_id, "attempt_number": 1, "changed_ms": 1}
    return json.dumps({name: value for name, value in (state | fields).items() if value is not None})


STATES: dict[str, str] = {
    "an error that is no JSON": silent(error="{x"),
    "a run that is no run id": silent(run_id="not-a-uuid\0"),
    "a run that is a number": silent(run_id=5),
    "a run that is a list": silent(run_id=["a"]),
    "a run that is the flow itself": silent(status="active", run_id="flow:ITSELF"),
    "a run that is no flow": silent(status="active", run_id="flow:\x1b[31m"),
    "an attempt that is a text": silent(attempt_number="x"),
    "an attempt beyond all numbers": silent(attempt_number=1e300),
    "a time that is missing": silent(changed_ms=None),
    "a list": "[1, 2]",
    "nesting": "[" * 2000 + "]" * 2000,
    "null": "null",
}


@pytest.mark.parametrize("state", STATES)
async def test_a_damaged_state_of_a_silent_step_stops_nothing_else(
    quick: Flows, hatchet: FakeHatchet, store: Store, state: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The flow ends or is put aside, without an untyped error, and the others end."""
    broken = await quick.creation.chain(["one", "two"])
    await quick.start(broken)
    await quick.drain()
    hatchet.queue.clear()
    waiting = await quick.creation.chain(["one", "two"])
    hatchet.is_away = True
    await quick.start(waiting)
    hatchet.is_away = False
    await store.port.command("DEL", f"{broken.key}:outbox")
    await store.port.command("HSET", f"{broken.key}:members", "0", STATES[state].replace("ITSELF", broken.key))
    await store.port.command("ZADD", f"{broken.key}:live", 1, "0")
    await store.port.command("ZADD", store.keys.parse(broken.key).due, 0, broken.key)
    working = FakeWorker(hatchet, quick, {"one": echo, "two": echo})
    assert await until_ended(quick, waiting.key, working) is Status.DONE
    reconciler = quick.reconciler()
    async with asyncio.timeout(10):
        while not (
            await store.port.command("HGET", broken.key, "status") in {"done", "failed"}
            or [each.key for each in await list_damaged(store.port, store.keys)] == [broken.key]
        ):
            await store.port.command("ZADD", store.keys.parse(broken.key).due, 0, broken.key)
            await reconciler.sweep()
            await working.drain()
    assert not [each for each in caplog.records if each.exc_info]
    assert await broken.remove()
    assert await store.port.command("KEYS", f"{broken.key}*") == []


HUGE: dict[str, tuple[str, str, str]] = {
    "total": ("", "total", "300000000"),
    "a total below zero": ("", "total", "-1"),
    "a total that is no number": ("", "total", "1e9"),
    "a total of 5,000 digits": ("", "total", "9" * 5000),
    "the next item": ("", "next_item", "-20000000"),
    "callbacks of the flow": (":definitions", "", 'S:300000000:0|{"v":1,"kind":"swarm","name":"x"}'),
    "callbacks of an item": (":definitions", "0", 'T:0:20000000|{"v":1,"kind":"task","task":"one"}'),
    "nesting": (":members", "0", "[" * 100_000),
    "a time that is none": ("", "created_ms", "1" + "0" * 300),
    "history that is none": ("", "history", '{"a": 1}'),
}


@pytest.mark.parametrize("damage", HUGE)
async def test_a_number_that_cannot_be_true_costs_no_time(
    quick: Flows, hatchet: FakeHatchet, store: Store, damage: str
) -> None:
    """Every operation that reads it ends with a typed error or its effect within seconds, and Redis serves others."""
    swarm = await quick.creation.swarm(["one"] * 3, config=SwarmConfig(max_concurrency=2))
    await quick.start(swarm)
    part, field, value = HUGE[damage]
    await store.port.command("HSET", f"{swarm.key}{part}", field, value)
    run = RunIdentity("run-0", dedupe_key=f"{swarm.key}#0/0")
    refused: list[str] = []
    for operation in (
        lambda: quick.load(swarm.key),
        lambda: quick.load(f"{swarm.key}#0"),
        lambda: describe_record(store.port, store.keys, swarm.key),
        lambda: admit(quick, f"{swarm.key}#0", run),
        lambda: quick.settle(f"{swarm.key}#0", run, AttemptOutcome("failed")),
        lambda: store.extend_swarm(swarm.key, close="now"),
        lambda: store.inspect(swarm.key, lease_seconds=1),
        lambda: quick.lifecycle.interrupt(swarm.key),
    ):
        async with asyncio.timeout(10):
            try:
                await operation()
            except SignatureError as error:
                refused.append(str(error))
            assert await store.port.command("EXISTS", "mageflow:other") == 0
    assert refused
    assert all(swarm.key in each for each in refused)
    assert await quick.lifecycle.remove(swarm.key)


@pytest.mark.parametrize("step", ["-5", "20000000", "1e300", "9" * 5000, "x"])
async def test_a_step_that_a_chain_does_not_have_costs_no_time(quick: Flows, store: Store, step: str) -> None:
    """Starting, settling and visiting such a chain ends within a second, typed or with its effect."""
    chain = await quick.creation.chain(["one", "two"])
    await quick.start(chain)
    await quick.drain()
    await store.port.command("HSET", chain.key, "step", step)
    run = RunIdentity("run-0", dedupe_key=f"{chain.key}#0/0")
    for operation in (
        lambda: quick.start(chain),
        lambda: quick.load(chain.key),
        lambda: describe_record(store.port, store.keys, chain.key),
        lambda: admit(quick, f"{chain.key}#0", run),
        lambda: quick.settle(f"{chain.key}#0", run, AttemptOutcome("succeeded", result_json="{}")),
        lambda: store.inspect(chain.key, lease_seconds=1),
        lambda: quick.lifecycle.interrupt(chain.key),
    ):
        async with asyncio.timeout(1):
            with suppress(SignatureError):
                await operation()
            assert await store.port.command("EXISTS", "mageflow:other") == 0
    assert await quick.lifecycle.remove(chain.key)


async def test_a_flow_without_a_status_cannot_be_scheduled(quick: Flows, store: Store) -> None:
    """A typed error, and nothing of the record is changed."""
    chain = await quick.creation.chain(["one", "two"])
    await store.port.command("HDEL", chain.key, "status")
    before = await store.port.command("HGETALL", chain.key)
    at = datetime.now(UTC) + timedelta(hours=1)
    with pytest.raises(SignatureInvalidError, match="the header has no status"):
        await quick.schedules.schedule(chain.key, at, {}, RunOptions())
    assert await store.port.command("HGETALL", chain.key) == before


async def test_removing_a_flow_cancels_what_it_can_beside_a_nested_flow_of_another_release(
    quick: Flows, hatchet: FakeHatchet, store: Store
) -> None:
    """The error names the nested flow; the runs of the others are cancelled and their records are gone."""
    nested = [await quick.creation.chain(["one", "two"]) for _ in range(3)]
    swarm = await quick.creation.swarm([*nested, "one"], closed=True)
    await quick.start(swarm)
    await quick.drain()
    await store.port.command("HSET", nested[0].key, "format", "9")
    runs = {run.id for run in hatchet.runs.values() if not run.request.signature_key.startswith(nested[0].key)}
    assert len(runs) == 3
    with pytest.raises(SignatureVersionError, match=re.escape(nested[0].key)):
        await swarm.remove()
    assert {run_id for run_id in runs if hatchet.runs[run_id].state == "cancelled"} == runs
    for each in (swarm, *nested[1:]):
        assert await store.port.command("EXISTS", each.key) == 0
