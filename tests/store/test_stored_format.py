"""The stored format: the field tables are complete, and a record of another version is refused."""

import asyncio
import json
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mageflow.config import Settings
from mageflow.errors import SignatureVersionError
from mageflow.signatures import (
    FORMAT_VERSION,
    FailureRecord,
    RunIdentity,
    SwarmConfig,
)
from mageflow.store import AttemptOutcome, MemberPath, SettleVerdict, StartRequest, describe_record
from mageflow.testing.valkey import EmbeddedValkey
from tests.flows.admitting import admit
from tests.flows.conftest import echo
from tests.store.stored_records import NAMESPACE, SCENARIOS, Stage, identity, raw_keys

ROOT = Path(__file__).parent.parent.parent
HEADER = ROOT / "mageflow" / "store" / "lua" / "lib_record.lua"
DOCUMENT = ROOT / "docs" / "storage.md"
QUICK = Settings(reconcile_grace_seconds=0.01, reconcile_check_seconds=0.01)


@dataclass(frozen=True)
class Row:
    """One field of a table."""

    kind: str
    written_by: str


Tables = dict[str, dict[str, Row]]


@pytest.fixture
async def stage(valkey: EmbeddedValkey) -> AsyncIterator[Stage]:
    """The parts that write, over an empty server."""
    stage = Stage.open(valkey.url)
    yield stage
    await stage.aclose()


@pytest.fixture
async def quick(valkey: EmbeddedValkey) -> AsyncIterator[Stage]:
    """The same, with a grace time and a check time of ten milliseconds."""
    stage = Stage.open(valkey.url, QUICK)
    yield stage
    await stage.aclose()


# -- tables ------------------------------------------------------------------------------------------------------------


def header_tables() -> Tables:
    """The table of the Lua library: keys under the empty name, then the fields of each key."""
    tables: Tables = {"": {}}
    key = name = ""
    lines = HEADER.read_text().split("-- FIELD", 1)[1].split("\n\nlocal ", 1)[0].splitlines()[1:]
    for line in lines:
        kind, written_by = line[30:43].strip(), line[43:62].strip()
        if found := re.match(r"--   (\S+)", line):
            key, name = "", found[1]
            tables[""][name] = Row(kind, written_by)
            tables[key := name] = {}
        elif found := re.match(r"--     (\S+)", line):
            name = found[1]
            tables[key][name] = Row(kind, written_by)
        elif written_by:
            table = tables[key].get(name) or tables[""][name]
            row = Row(table.kind, f"{table.written_by} {written_by}")
            (tables[key] if name in tables[key] else tables[""])[name] = row
    return {name: table for name, table in tables.items() if table}


def document_tables() -> Tables:
    """The tables of the document, in the same form."""
    sections = {
        "": "## Keys\n",
        "record": "## The header of a record\n",
        "members": "## The state of a member\n",
        "outbox": "## An entry of the outbox\n",
    }
    text = DOCUMENT.read_text()
    tables: Tables = {}
    for key, title in sections.items():
        tables[key] = {}
        for line in text.split(title, 1)[1].split("\n## ", 1)[0].splitlines():
            cells = [each.strip() for each in re.split(r"(?<!\\)\|", line)[1:-1]]
            if not cells or not cells[0].startswith("`"):
                continue
            kind = cells[1] if key == "" else cells[2] or cells[1]
            written_by = cells[2] if key == "" else cells[3]
            tables[key][cells[0].strip("`")] = Row(kind, "" if written_by == "see its table" else written_by)
    return tables


def test_both_tables_say_the_same() -> None:
    """Every field, its type or unit, and the scripts that write it; the document also has when each goes."""
    assert document_tables() == header_tables()
    assert all(len(table) > 4 for table in document_tables().values())


def test_scripts_use_no_field_that_the_table_lacks() -> None:
    """A misspelt field is found without a run."""
    tables = header_tables()
    text = "\n".join(
        path.read_text()
        for path in HEADER.parent.glob("*.lua")
        if not path.name.startswith(("lock_", "lib_lock", "lead", "due", "census", "server"))
    )
    code = re.sub(r"--.*", "", text)
    header = set(re.findall(r"\bheader\.([a-z_]+)", code)) | set(
        re.findall(r"\b(?:put|number|clear)\('([a-z_]+)'", code)
    )
    state = set(re.findall(r"\b(?:state|before|next_state|failed)\.([a-z_]+)", code))
    state |= set(re.findall(r"\bprevious\.([a-z_]+)", code))
    entry = set(re.findall(r"\bentry\.([a-z_]+)", code))
    assert header - tables["record"].keys() == set()
    assert state - tables["members"].keys() == set()
    assert entry - tables["outbox"].keys() == set()
    assert len(header) > 20
    assert len(state) > 15


# -- what is written ---------------------------------------------------------------------------------------------------


class Seen:
    """Every key and field that was in Redis at some moment, with its values."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.values: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))

    async def look(self) -> None:
        """Note what is stored now."""
        for key, found in (await raw_keys(self._stage.port)).items():
            self._note(key, found)

    def _note(self, key: str, found: dict[str, Any]) -> None:
        *_, tag, rest = re.split(r"[{}]", key)
        assert tag.startswith(f"{NAMESPACE}/")
        parts = rest.lstrip(":").split(":")
        if parts[0] == "stats":
            name = {"started": "stats:started:<kind>", "items": "stats:items"}.get(parts[1], "stats:<kind>:<status>")
        else:
            name = "record" if len(parts) == 2 else parts[-1]
        self.values[""][name].append(found["type"])
        if name == "record":
            for field, value in found["value"].items():
                self.values["record"][field].append(value)
        elif name in {"members", "outbox"}:
            for field, text in found["value"].items():
                if field.startswith("added:"):
                    self.values[""]["members[added:<token>]"].append(text)
                    continue
                for inner, value in json.loads(text).items():
                    self.values[name][inner].append(value)
        elif name == "results":
            for field in found["value"]:
                if field.startswith("input:"):
                    self.values[""]["results[input:<path>]"].append(found["value"][field])


def matches(pattern: str) -> Callable[[Any], bool]:
    """Whether the text of a value matches."""
    return lambda value: re.fullmatch(pattern, str(value)) is not None


def is_json(kind: type) -> Callable[[Any], bool]:
    """Whether a value is, or is the text of, a JSON document of a kind."""
    return lambda value: isinstance(json.loads(value) if isinstance(value, str) else value, kind)


KINDS: dict[str, Callable[[Any], bool]] = {
    "number": matches(r"-?\d+(\.0)?"),
    "ms": matches(r"\d+"),
    "epoch ms": matches(r"1\d{12}"),
    "0 or 1": matches("[01]"),
    "true": lambda value: value is True,
    "word": matches("[a-z]+"),
    "text": lambda value: isinstance(value, str),
    "run id": matches(r"(run-\d+|flow:mageflow:.+)"),
    "member key": matches(r"mageflow:.+#.+"),
    "JSON text": is_json(object),
    "[change]": is_json(list),
    "run": is_json(dict),
    "copies": is_json(dict),
    "hash": matches("hash"),
    "zset": matches("zset"),
    "list": matches("list"),
}


async def test_scripts_store_exactly_what_the_tables_list(quick: Stage) -> None:
    """Through starts, retries, losses, suspensions, additions and ends: every field of the tables, and no other."""
    seen = Seen(quick)
    for write in WRITERS:
        await write(quick, seen.look)
        await seen.look()
    tables = header_tables()
    listed = {(name, field) for name, table in tables.items() for field in table}
    stored = {(name, field) for name, fields in seen.values.items() for field in fields}
    assert sorted(stored - listed) == []
    assert sorted(listed - stored) == []
    wrong = [
        (name, field, row.kind, value)
        for name, table in tables.items()
        for field, row in table.items()
        for value in seen.values[name][field]
        if not KINDS[row.kind](value)
    ]
    assert wrong == []


Look = Callable[[], Awaitable[None]]


async def write_scenarios(stage: Stage, look: Look) -> None:
    """Those of the fixtures."""
    for scenario in SCENARIOS.values():
        stage.hatchet.queue.clear()
        await scenario(stage)
        await look()
    stage.hatchet.queue.clear()


async def write_swarm(stage: Stage, look: Look) -> None:
    """Items are added; a place that is free waits for more."""
    config = SwarmConfig(max_concurrency=6, refill_linger_ms=5000, stop_after_n_failures=2, max_task_allowed=20)
    swarm = await stage.flows.creation.swarm(["price"] * 8, config=config)
    await stage.flows.swarms.add(swarm.key, ["price", "price"])
    decision = await stage.store.start(
        StartRequest(swarm.key, "{}", traceparent="00-a-b-01", by="ana", options_json='{"priority":3}')
    )
    await asyncio.sleep(0.02)
    await stage.store.inspect(swarm.key, lease_seconds=1)
    await look()
    entry, run = decision.outbox[0], RunIdentity("run-100", traceparent="00-a-c-01")
    await stage.store.acknowledge(decision.keys, [entry.sent_as(run.workflow_run_id)])
    await look()
    await admit(stage.store, f"{swarm.key}#0", run)
    settled = await stage.store.settle(f"{swarm.key}#0", run, AttemptOutcome("succeeded", result_json="1"))
    assert settled.refill_after_seconds == 5
    await look()
    await swarm.interrupt(why="enough")


async def write_schedule(stage: Stage, look: Look) -> None:
    """A chain that starts by itself."""
    chain = await stage.flows.creation.chain(["price", "ship"])
    request = StartRequest(chain.key, "{}", message_set_json="{}", options_json='{"priority":3}')
    await stage.store.schedule(chain.key, datetime.now(UTC) + timedelta(hours=1), request)
    await look()


async def write_lost_runs(stage: Stage, look: Look) -> None:
    """A step that is retried, lost before and after its start, and not scheduled."""
    first = await stage.flows.creation.sign("price", error_callbacks=["apology"])
    chain = await stage.flows.creation.chain([first, "ship"])
    await stage.flows.start(chain, {"order": 17})
    step = MemberPath(0)
    error = FailureRecord.interrupted("x")

    async def sent() -> RunIdentity:
        stage.hatchet.queue.clear()
        await asyncio.sleep(0.02)
        await look()
        await stage.flows.reconciler().sweep()
        await stage.flows.drain()
        run = stage.hatchet.queue[-1]
        run.attempt = 1
        return identity(run)

    async def end(run: RunIdentity, ended: AttemptOutcome) -> SettleVerdict:
        settled = await stage.store.settle(step.key(chain.key), run, ended)
        await look()
        return settled.verdict

    await stage.flows.drain()
    stage.hatchet.queue[-1].attempt = 1
    run = identity(stage.hatchet.queue[-1])
    lost = AttemptOutcome("lost", error=error, reported_by_engine=True)
    assert await end(run, lost) is SettleVerdict.RESENT
    run = await sent()
    unscheduled = AttemptOutcome("unscheduled", error=error, reported_by_engine=True)
    assert await end(run, unscheduled) is SettleVerdict.RESENT
    run = await sent()
    await admit(stage.store, step.key(chain.key), run)
    await stage.store.keep_alive(stage.store.keys.parse(chain.key), [(step, run.workflow_run_id)])
    await look()
    retried = AttemptOutcome("retried", error=error, will_retry=True)
    assert await end(run, retried) is SettleVerdict.RECORDED
    await asyncio.sleep(0.05)
    assert await end(run, lost) is SettleVerdict.RESENT
    run = await sent()
    await admit(stage.store, step.key(chain.key), run)
    failed = AttemptOutcome("failed", error=error, input_json='{"order": 17}', stages_ms={"queue": 4, "body": 12})
    assert await end(run, failed) is SettleVerdict.SETTLED
    stage.hatchet.queue.clear()


async def write_suspended_member(stage: Stage, look: Look) -> None:
    """A step that is suspended by itself."""
    chain = await stage.flows.creation.chain(["price", "ship"])
    await stage.flows.lifecycle.suspend(MemberPath(1).key(chain.key))
    await stage.flows.start(chain, {"order": 17})
    await stage.worker(price=echo, ship=echo).drain()
    await look()


async def write_many_runs(stage: Stage, look: Look) -> None:
    """More runs of one signature than are kept."""
    signature = await stage.flows.creation.sign("price")
    for _ in range(66):
        await stage.run_by_user(signature, {"order": 17})
        await stage.worker(price=echo).one()
    await stage.run_by_user(signature, {"order": 18})
    run = stage.hatchet.queue.pop()
    run.attempt = 1
    await admit(
        stage.store, signature.key, identity(run), input_json=run.request.input_json, options_json='{"priority":3}'
    )
    await look()


async def write_workflow(stage: Stage, look: Look) -> None:
    """A step whose run has several tasks, and fails with one of them."""
    chain = await stage.flows.creation.chain(["price", "ship"], error=["apology"])
    await stage.flows.start(chain, {"order": 17})
    run = stage.hatchet.queue.pop()
    run.attempt = 1
    key = MemberPath(0).key(chain.key)
    await admit(stage.store, key, identity(run), workflow="task")
    await look()
    failed = AttemptOutcome("failed", error=FailureRecord.interrupted("x"), input_json='{"order": 17}')
    await stage.store.settle(key, identity(run), failed)
    await look()
    stage.hatchet.queue.clear()


async def write_damage(stage: Stage, look: Look) -> None:
    """A record that cannot be read and is put aside."""
    chain = await stage.flows.creation.chain(["price", "ship"])
    await stage.store.put_aside(chain.key, "the state of 0 is no object")
    await look()


WRITERS = (
    write_scenarios, write_swarm, write_schedule, write_lost_runs, write_suspended_member, write_many_runs,
    write_workflow, write_damage,
)  # fmt: skip


# -- another version ---------------------------------------------------------------------------------------------------


async def test_a_record_of_another_version_is_refused_and_left_alone(stage: Stage) -> None:
    """Every script: a typed error with the key and both versions, and nothing is changed."""
    chain = await stage.flows.creation.chain(["price", "ship"])
    await stage.flows.start(chain)
    await stage.flows.drain()
    keys = stage.store.keys.parse(chain.key)
    await stage.port.command("HSET", chain.key, "format", str(FORMAT_VERSION + 1))
    before = await raw_keys(stage.port)
    run = RunIdentity("run-0")
    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: stage.store.create(keys, [], {"name": "order"}),
        lambda: stage.store.load(chain.key),
        lambda: admit(stage.store, f"{chain.key}#0", run),
        lambda: stage.store.settle(f"{chain.key}#0", run, AttemptOutcome("succeeded")),
        lambda: stage.store.start(StartRequest(chain.key, "{}")),
        lambda: stage.store.apply_lifecycle(chain.key, "suspend"),
        lambda: stage.store.extend_swarm(chain.key),
        lambda: stage.store.acknowledge(keys, []),
        lambda: stage.store.keep_alive(keys),
        lambda: stage.store.inspect(chain.key, lease_seconds=1),
        lambda: stage.flows.rebinding.rebind(chain.key, {"order": 18}),
        lambda: stage.store.remove(chain.key),
        lambda: describe_record(stage.port, stage.store.keys, chain.key),
    ]
    for call in calls:
        with pytest.raises(SignatureVersionError) as refused:
            await call()
        assert (refused.value.key, refused.value.stored, refused.value.supported) == (
            chain.key,
            FORMAT_VERSION + 1,
            FORMAT_VERSION,
        )
    assert await raw_keys(stage.port) == before


async def test_a_record_without_a_version_is_refused(stage: Stage) -> None:
    """It is of no release."""
    chain = await stage.flows.creation.chain(["price", "ship"])
    await stage.port.command("HDEL", chain.key, "format")
    with pytest.raises(SignatureVersionError, match="format 0"):
        await stage.flows.load(chain.key)


async def test_a_definition_of_another_version_is_refused(stage: Stage) -> None:
    """It names the member whose definition it is."""
    chain = await stage.flows.creation.chain(["price", "ship"])
    text = '{"v":7,"kind":"task","task":"price","new":true}'
    await stage.port.command("HSET", f"{chain.key}:definitions", "0", f"T:0:0|{text}")
    with pytest.raises(SignatureVersionError) as refused:
        await stage.flows.load(f"{chain.key}#0")
    assert (refused.value.key, refused.value.stored) == (f"{chain.key}#0", 7)


async def test_a_reconciler_goes_on_past_a_record_of_another_version(
    stage: Stage, valkey: EmbeddedValkey, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged with its key, and the next record is visited."""
    quick = Stage.open(valkey.url, QUICK)
    foreign = await quick.flows.creation.chain(["price", "ship"])
    await quick.flows.start(foreign)
    await quick.port.command("HSET", foreign.key, "format", "2")
    ours = await quick.flows.creation.chain(["price", "ship"])
    quick.hatchet.is_away = True
    await quick.flows.start(ours)
    quick.hatchet.is_away = False
    quick.hatchet.queue.clear()
    await asyncio.sleep(0.05)
    await quick.flows.reconciler().sweep()
    assert [run.request.signature_key for run in quick.hatchet.queue] == [f"{ours.key}#0"]
    assert f"{foreign.key} cannot be reconciled" in caplog.text
    await quick.aclose()
