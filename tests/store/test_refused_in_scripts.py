"""A script that is refused half-way, because its user may not run one of its commands, has changed nothing."""

import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from mageflow.errors import MageflowError, StoreUnavailableError
from mageflow.signatures import FailureRecord, RunIdentity, Status
from mageflow.store import (
    Acknowledgement,
    AttemptOutcome,
    DedupeKey,
    MemberPath,
    Script,
    StartRequest,
    StoredDefinition,
    chain_header,
)
from mageflow.store.locks import store as lock_store
from mageflow.store.records.declarations import RECORD_SCRIPTS
from mageflow.testing.valkey import EmbeddedValkey
from tests.flows.admitting import admit
from tests.store.fuzz import QUICK
from tests.store.stored_records import FIXTURES, Stage, raw_keys, read_fixture, write_raw_keys
from tests.store.test_topologies_permissions import commands_of_scripts

pytestmark = pytest.mark.slow

USER = ("reset", "on", ">secret", "~*", "&*", "+@all")


@pytest.fixture
async def allowed(valkey: EmbeddedValkey) -> AsyncIterator[Stage]:
    """The parts, under a user that may do everything."""
    stage = Stage.open(valkey.url, QUICK)
    yield stage
    await stage.port.command("ACL", "DELUSER", "lesser")
    await stage.aclose()


@pytest.fixture
async def lesser(valkey: EmbeddedValkey, allowed: Stage) -> AsyncIterator[Stage]:
    """The parts, under a user whose rules a test changes."""
    await allowed.port.command("ACL", "SETUSER", "lesser", *USER)
    stage = Stage.open(valkey.url.replace("redis://", "redis://lesser:secret@"), QUICK)
    yield stage
    await stage.aclose()


def operations(stage: Stage, key: str) -> dict[str, Callable[[], Awaitable[Any]]]:
    """Each is one script over one record."""
    store = stage.store
    keys = store.keys.parse(key)
    member = key if keys.kind == "task" else f"{key}#0"
    error = FailureRecord.interrupted("x")
    run = RunIdentity(
        "run-0", "step-1", "worker", 1, "" if keys.kind == "task" else str(DedupeKey(key, MemberPath(0), 0))
    )
    definition = str(StoredDefinition("task", 0, 0, '{"v":1,"kind":"task","task":"price"}'))
    new = store.keys.new("chain", "0" * 31 + "a")
    return {
        "create": lambda: store.create(new, ["0", definition, "1", definition], chain_header("x", 2)),
        "start": lambda: store.start(StartRequest(key, "{}", by="ana")),
        "admit": lambda: admit(store, member, run, input_json="{}"),
        "succeed": lambda: store.settle(member, run, AttemptOutcome("succeeded", result_json="1")),
        "fail": lambda: store.settle(member, run, AttemptOutcome("failed", error=error, input_json="{}")),
        "suspend": lambda: store.apply_lifecycle(key, "suspend"),
        "resume": lambda: store.apply_lifecycle(key, "resume"),
        "interrupt": lambda: store.apply_lifecycle(key, "interrupt", error=error),
        "suspend member": lambda: store.apply_lifecycle(member, "suspend"),
        "extend": lambda: store.extend_swarm(key, ["0", definition], close="now", token=member),
        "acknowledge": lambda: store.acknowledge(keys, [Acknowledgement("0", 0, "run-1")]),
        "alive": lambda: store.keep_alive(keys, [(MemberPath(0), "run-0")]),
        "inspect": lambda: store.inspect(key, lease_seconds=0.001),
        "due": lambda: store.due(100, 1.0),
        "put aside": lambda: store.put_aside(key, "why"),
        "remove": lambda: store.remove(key),
    }


@pytest.mark.parametrize("scenario", ["half_done_swarm", "suspended_signature"])
async def test_a_refused_script_has_changed_nothing(allowed: Stage, lesser: Stage, scenario: str) -> None:
    """Each script without each command that any script calls; and without each key of the record."""
    fixture = json.loads((FIXTURES / "format_1" / f"{scenario}.json").read_text())
    key = await read_fixture(allowed, 1, scenario)
    parts = ("record", "definitions", "members", "results", "live", "outbox", "held", "due")
    keys = lesser.store.keys.parse(key)
    rules = {
        **{f"-{each}": (*USER, f"-{each}") for each in sorted(commands_of_scripts())},
        **{each: _without(str(getattr(keys, each))) for each in parts},
    }
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    for name in operations(lesser, key):
        for rule, words in rules.items():
            await allowed.port.command("FLUSHALL")
            await write_raw_keys(allowed.port, fixture["keys"])
            await allowed.port.command("ACL", "SETUSER", "lesser", *words)
            before = await raw_keys(allowed.port)
            counts["calls"] += 1
            try:
                await operations(lesser, key)[name]()
            except StoreUnavailableError:
                counts["refused"] += 1
                if _without_times(await raw_keys(allowed.port)) != _without_times(before):
                    wrong.append(f"{name} {rule}")
            except MageflowError:
                counts["other"] += 1
    print(f"\n{scenario}: {dict(counts)}, changed half-way {len(wrong)}: {wrong}")
    assert wrong == []
    assert counts["refused"] > 100


def _without(key: str) -> tuple[str, ...]:
    """Rules of a user that may use every key but one. Patterns name what is allowed: what differs at some letter."""
    others = [f"~{_glob(key[:index])}[^{_glob(key[index])}]*" for index in range(len(key))]
    return ("reset", "on", ">secret", "&*", "+@all", *others, f"~{_glob(key)}?*")


def _glob(text: str) -> str:
    return re.sub(r"([\[\]*?^\\])", r"\\\1", text)


def _without_times(found: dict[str, Any]) -> dict[str, Any]:
    return {key: (each["type"], each["value"]) for key, each in found.items()}


async def test_every_script_that_writes_asks_first(allowed: Stage) -> None:
    """Of records and of locks; the server says which commands write."""
    asking = 0
    lock_scripts = [each for each in vars(lock_store).values() if isinstance(each, Script)]
    assert len(lock_scripts) == 5
    for script in (*RECORD_SCRIPTS, *lock_scripts):
        commands = set(re.findall(r"\b(?:redis\.p?call|on_index)\('([A-Z]+)'", script.source))
        infos = [await allowed.port.command("COMMAND", "INFO", each) for each in sorted(commands)]
        writes = ["write" in str(info) for info in infos]
        assert ("acl_check_cmd" in script.source) == any(writes), script.name
        asking += any(writes)
    assert asking > 20


async def test_a_full_redis_begins_nothing_and_lets_an_operator_make_room(allowed: Stage) -> None:
    """A refusal of the first write refuses the script whole. Later writes of a script are not refused."""
    store = allowed.store
    signature = await allowed.flows.creation.sign("price", success_callbacks=["note"])
    chains = [await allowed.flows.creation.chain(["price", "ship"]) for _ in range(4)]
    keys = [each.key for each in chains]
    past = datetime(2025, 1, 1, tzinfo=UTC)
    message = StartRequest(keys[0], '{"order":17}', message_set_json='{"order":17}')
    assert await store.schedule(keys[0], past, message) == ("scheduled", "pending")
    await allowed.flows.start(chains[1], {"order": 17})
    run = RunIdentity("run-0", "step-0", "worker", 1)
    step = RunIdentity("run-1", "step-1", "worker", 1, str(DedupeKey(keys[1], MemberPath(0), 0)))
    await allowed.flows.drain()
    begin: dict[str, Callable[[], Awaitable[Any]]] = {
        "sign": lambda: allowed.flows.creation.sign("price"),
        "admit a first run": lambda: admit(store, signature.key, run, input_json="{}"),
        "admit a step": lambda: admit(store, f"{keys[1]}#0", step),
        "start": lambda: allowed.flows.start(chains[2], {"order": 17}),
        "start as scheduled": lambda: store.start(replace(message, is_scheduled=True)),
        "schedule anew": lambda: store.schedule(keys[0], past, replace(message, message_set_json="")),
        "suspend": chains[3].suspend,
    }
    before = await raw_keys(allowed.port)
    await allowed.port.command("CONFIG", "SET", "maxmemory", "100kb")
    try:
        for name, operation in begin.items():
            with pytest.raises(StoreUnavailableError, match="maxmemory"):
                await operation()
            assert await raw_keys(allowed.port) == before, name
        await chains[3].interrupt()
        assert await store.remove(keys[2]) is not None
    finally:
        await allowed.port.command("CONFIG", "SET", "maxmemory", "0")
    assert (await store.load(keys[3])).status is Status.INTERRUPTED
    assert (await admit(store, signature.key, run, input_json="{}")).verdict == "run"
