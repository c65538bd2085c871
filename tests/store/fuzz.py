"""Damages stored records at random and calls every operation on them: ``python -m tests.store.fuzz --seconds 60``.

Prints how many inputs and operations there were, how many ended with a typed error, and each untyped end with its seed.
An operation that takes over `SLOW_SECONDS` is untyped too: it blocks Redis or this process.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from mageflow.config import Settings
from mageflow.errors import MageflowError
from mageflow.signatures import RunIdentity, RunOptions
from mageflow.store import Acknowledgement, AttemptOutcome, MemberPath, describe_record, list_damaged
from mageflow.testing.valkey import EmbeddedValkey
from tests.flows.admitting import admit
from tests.store.stored_records import FIXTURES, SCENARIOS, Stage, read_fixture, write_raw_keys

SLOW_SECONDS: Final = 2.0
QUICK: Final = Settings(reconcile_grace_seconds=0.01, reconcile_check_seconds=0.01)

VALUES: Final[tuple[Any, ...]] = (
    "", "x", "\x00", "\x1b[31m", "é" * 300, "-1", "0", "1e300", "nan", "inf", "-inf", "20000000", "9" * 5000, "0x10",
    "null", "true", "[]", "{}", "[1]", '"', "{", "[" * 3000, "[" * 900 + "]" * 900, '{"status":"active"}',
    '{"status":"zzz","epoch":0}', '{"epoch":1e308,"status":"sent","run_id":5,"attempt_number":1,"changed_ms":1}',
    "T:20000000:0|{}", "T:0:0|{", "C:1:1|null", "F:0:0|{}", "flow:x", "start:", "member:0.s0.e0",
    b"\xff\xfe", b'{"a":"\xff"}', b'T:0:0|{"v":1,"kind":"task","task":"\xff"}',
)  # fmt: skip
"""Texts that are put in the place of a stored one."""

LEAVES: Final[tuple[Any, ...]] = (
    None, True, -1, 0, 20_000_000, 10**18, 1e300, "", "x", "\x00", "\x1b[31m", "9" * 5000, [], {}, [[]], {"a": [1]},
)  # fmt: skip
"""Values that are put in the place of one inside a stored JSON document."""


@dataclass
class Counts:
    """What became of the operations."""

    inputs: int = 0
    operations: int = 0
    typed: Counter[str] = field(default_factory=Counter)
    untyped: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"inputs {self.inputs}, operations {self.operations}, typed {self.typed.total()} "
            f"{dict(self.typed.most_common())}, untyped {len(self.untyped)}"
        )


def damage(chance: random.Random, keys: dict[str, dict[str, Any]]) -> None:
    """Change one to three places of what is stored, in place."""
    for _ in range(chance.choice((1, 1, 2, 3))):
        found = keys[chance.choice(sorted(keys))]
        kind = chance.random()
        if kind < 0.1:
            found["type"] = chance.choice(("hash", "zset", "list", "string"))
            found["value"] = {"hash": {"a": "b"}, "zset": {"a": 1}, "list": ["a"], "string": "a"}[found["type"]]
        elif found["type"] == "string" or not found["value"]:
            found["value"] = chance.choice(VALUES)
        elif found["type"] == "list":
            found["value"][chance.randrange(len(found["value"]))] = chance.choice(VALUES) or "x"
        else:
            _damage_fields(chance, found)


def _damage_fields(chance: random.Random, found: dict[str, Any]) -> None:
    values, name = found["value"], chance.choice(sorted(found["value"], key=str))
    kind = chance.random()
    if kind < 0.15:
        values.pop(name)
        values["gone"] = 1
    elif kind < 0.3:
        values[chance.choice(VALUES) or "x"] = values[name]
    elif found["type"] == "zset":
        values[name] = chance.choice((-1, 0, "inf", "-inf", 1e300, 5))
    elif kind < 0.65 and (document := _document(values[name])):
        values[name] = _with_leaf(chance, document)
    elif kind < 0.75:
        text = str(values[name])
        values[name] = text[: chance.randrange(len(text) + 1)]
    else:
        values[name] = chance.choice(VALUES)


def _document(text: Any) -> tuple[str, Any] | None:
    head, bar, rest = str(text).partition("|")
    for before, body in ((head + bar, rest), ("", str(text))):
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            continue
        if isinstance(document, dict) and document:
            return before, document
    return None


def _with_leaf(chance: random.Random, found: tuple[str, Any]) -> str:
    head, document = found
    name = chance.choice(sorted(document))
    if chance.random() < 0.2:
        document.pop(name)
    else:
        document[name] = chance.choice(LEAVES)
    return head + json.dumps(document)


def operations(stage: Stage, key: str) -> dict[str, Callable[[], Awaitable[Any]]]:
    """Every operation that reads what is stored, by name; the last removes it."""
    store, flows, keys = stage.store, stage.flows, stage.store.keys.parse(key)
    member = f"{key}#0" if keys.kind != "task" else key
    run = RunIdentity("run-1", "step-1", "worker", 1, f"{key}#0/0")
    return {
        "due": lambda: store.due(100, 1.0),
        "load": lambda: store.load_with_result(key),
        "load member": lambda: store.load(member),
        "definitions": lambda: store.definitions(key),
        "describe": lambda: describe_record(stage.port, store.keys, key),
        "inspect": lambda: store.inspect(key, lease_seconds=0.001),
        "census": store.census,
        "sweep": lambda: flows.reconciler().sweep(),
        "search": lambda: _found(stage),
        "rebind": lambda: flows.rebinding.rebind(key, {"y": 2}),
        "rebind member": lambda: flows.rebinding.rebind(member, {"y": 2}),
        "derive": lambda: flows.creation.sign(member, x=1),
        "schedule": lambda: flows.schedules.schedule(key, _soon(), {"a": 1}, RunOptions(metadata={"b": "c"})),
        "keep": lambda: flows.schedules.keep(key, _soon()),
        "start": lambda: flows.start(key, {"a": 1}),
        "admit": lambda: admit(flows, member, run, input_json="{}", task_names=("price",)),
        "alive": lambda: store.keep_alive(keys, [(MemberPath(0), "run-1")]),
        "acknowledge": lambda: store.acknowledge(keys, [Acknowledgement("0", 0, "run-1")]),
        "settle": lambda: flows.settle(member, run, AttemptOutcome("succeeded", result_json="1")),
        "failures": lambda: store.list_failures(key, first=0, limit=100),
        "extend": lambda: store.extend_swarm(key, close="now"),
        "suspend": lambda: flows.lifecycle.suspend(key),
        "resume": lambda: flows.lifecycle.resume(key),
        "suspend member": lambda: flows.lifecycle.suspend(f"{key}#0"),
        "resume member": lambda: flows.lifecycle.resume(f"{key}#0"),
        "interrupt member": lambda: flows.lifecycle.interrupt(f"{key}#0"),
        "interrupt": lambda: flows.lifecycle.interrupt(key),
        "damaged": lambda: list_damaged(stage.port, store.keys, clear=True),
        "remove": lambda: store.remove(key),
    }


def _soon() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)


async def _found(stage: Stage) -> int:
    return len([each async for each in stage.flows.search.find()])


async def fuzz_once(stage: Stage, chance: random.Random, seed: object, counts: Counts) -> None:
    """Damage one record and call every operation on it, in any order."""
    await stage.port.command("FLUSHALL")
    name = chance.choice(sorted(SCENARIOS))
    fixture = json.loads((FIXTURES / "format_1" / f"{name}.json").read_text())
    await read_fixture(stage, 1, name)
    await stage.port.command("FLUSHALL")
    damage(chance, fixture["keys"])
    try:
        await write_raw_keys(stage.port, fixture["keys"])
    except MageflowError:
        return  # no command stores such a value
    counts.inputs += 1
    calls = list(operations(stage, fixture["record"]).items())
    last = calls.pop()
    chance.shuffle(calls)
    for operation, call in [*calls, last]:
        counts.operations += 1
        started = time.monotonic()
        try:
            async with asyncio.timeout(SLOW_SECONDS * 5):
                await call()
        except MageflowError as error:
            counts.typed[type(error).__name__] += 1
        except Exception as error:  # noqa: BLE001 - what the fuzz is for
            counts.untyped.append(f"seed {seed} {name} {operation}: {type(error).__name__}: {str(error)[:300]}")
        if time.monotonic() - started > SLOW_SECONDS:
            counts.untyped.append(f"seed {seed} {name} {operation}: took {time.monotonic() - started:.1f} s")


async def fuzz(url: str, seeds: Callable[[], int | None]) -> Counts:
    """Fuzz with one seed after another until there is none."""
    counts, stage = Counts(), Stage.open(url, QUICK)
    try:
        while (seed := seeds()) is not None:
            await fuzz_once(stage, random.Random(seed), seed, counts)
    finally:
        await stage.aclose()
    return counts


def main() -> None:
    """Fuzz for some seconds, print the counts, and end with 1 if anything was untyped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, help="one seed, as printed for an untyped end")
    arguments = parser.parse_args()
    until, given = time.monotonic() + arguments.seconds, [arguments.seed]

    def seeds() -> int | None:
        if arguments.seed is not None:
            return given.pop() if given else None
        return random.SystemRandom().getrandbits(48) if time.monotonic() < until else None

    with EmbeddedValkey() as server:
        counts = asyncio.run(fuzz(server.url, seeds))
    for each in counts.untyped[:20]:
        print(each)
    print(counts)
    sys.exit(1 if counts.untyped else 0)


if __name__ == "__main__":
    main()
