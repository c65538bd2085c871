"""Checks what happened, from Redis's own log of every write and from the journal of the task functions.

The append-only file holds each write in order, and the writes of one script between MULTI and EXEC. So nothing has to
be observed in the act: a member that was admitted for two runs, or after it had succeeded, has left a trace.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hiredis

from mageflow.store import DedupeKey, flow_of_run
from tests.flows.crash_injection.progress import ADDITION, ENDED, flows_key
from tests.flows.crash_injection.scenarios import Scenario, Tree

JOURNAL_FILE = "journal.jsonl"
DEATHS_FILE = "deaths.jsonl"


@dataclass
class Member:
    """Every state of a member, in order."""

    states: list[dict[str, Any]] = field(default_factory=list)

    @property
    def status(self) -> str:
        return str(self.states[-1]["status"])

    @property
    def ends(self) -> int:
        """How often it ended: settled with a status or a run it did not have before."""
        before = [None, *self.states]
        return sum(
            now["status"] in ENDED
            and (was is None or was["status"] != now["status"] or was.get("run_id") != now.get("run_id"))
            for was, now in zip(before, self.states, strict=False)
        )

    @property
    def left_an_end(self) -> bool:
        """True if it had another status after it had ended."""
        ended = False
        for state in self.states:
            if ended and state["status"] not in ENDED:
                return True
            ended = ended or state["status"] in ENDED
        return False

    @property
    def done_at(self) -> int | None:
        """When its success was written, in milliseconds."""
        return next((int(state["changed_ms"]) for state in self.states if state["status"] == "done"), None)

    def owners(self) -> dict[int, set[str]]:
        """The admitted runs, by dispatch."""
        found: dict[int, set[str]] = defaultdict(set)
        for state in self.states:
            if state["status"] == "active" and flow_of_run(state.get("run_id", "")) is None:
                found[int(state["epoch"])].add(str(state["run_id"]))
        return found

    @property
    def nested(self) -> str:
        """The key of the nested flow, if it is one."""
        return next((flow for state in self.states if (flow := flow_of_run(state.get("run_id") or ""))), "")


@dataclass
class Record:
    """A signature or flow with everything that was written about it."""

    header: dict[str, str] = field(default_factory=dict)
    members: dict[str, Member] = field(default_factory=lambda: defaultdict(Member))
    results: dict[str, str] = field(default_factory=dict)
    outbox: dict[str, str] = field(default_factory=dict)
    live: set[str] = field(default_factory=set)


class RedisHistory:
    """All records, from an append-only file."""

    def __init__(self, records: dict[str, Record], flows: dict[str, set[str]]) -> None:
        self.records = records
        self.flows = flows
        """The keys of the flows each case started."""

    @classmethod
    def read(cls, *folders: Path) -> "RedisHistory":
        records: dict[str, Record] = defaultdict(Record)
        flows: dict[str, set[str]] = defaultdict(set)
        for command, key, *rest in _in_order([list(_log(each)) for each in folders]):
            if key.startswith(flows_key("")) and command == "SADD":
                flows[key.removeprefix(flows_key(""))].update(rest)
            elif key.startswith("mageflow:{"):
                _apply(records, command, key, rest)
        return cls(records, flows)


def _in_order(logs: list[list[list[str]]]) -> Iterator[list[str]]:
    """The commands of several servers, those of each hash tag in their order.

    The slots of a Cluster may have moved, each once. The server that has got the keys of a tag with RESTORE wrote after
    the server that had them.
    """
    received = [{_tag(key) for command, key, *_ in log if command.startswith("RESTORE")} for log in logs]
    for is_received in (False, True):
        for log, tags in zip(logs, received, strict=True):
            yield from (each for each in log if (_tag(each[1]) in tags) is is_received)


def _tag(key: str) -> str:
    return key.partition("{")[2].partition("}")[0]


def _log(folder: Path) -> Iterator[list[str]]:
    for path in sorted(folder.glob("appendonlydir/*.incr.aof")):
        yield from _commands(path)


def _commands(path: Path) -> Iterator[list[str]]:
    reader = hiredis.Reader(encoding="utf-8", errors="replace")
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            # Timestamps stand between commands, as comments.
            reader.feed(chunk)
            while (command := reader.gets()) is not False:
                if len(command) > 1:
                    yield [command[0].upper(), *command[1:]]


def _apply(records: dict[str, Record], command: str, key: str, rest: list[str]) -> None:
    parts = key.split(":")
    if len(parts) < 4 or parts[2] not in {"task", "chain", "swarm"}:
        return
    record, part = records[":".join(parts[:4])], ":".join(parts[4:])
    if command in {"HSET", "HMSET"}:
        pairs = list(zip(rest[::2], rest[1::2], strict=True))
        if part == "":
            record.header.update(pairs)
        elif part == "results":
            record.results.update(pairs)
        elif part == "outbox":
            record.outbox.update(pairs)
        elif part == "members":
            for path, state in pairs:
                if not path.startswith(ADDITION):
                    record.members[path].states.append(_state(state))
    elif command == "HDEL" and part == "outbox":
        for path in rest:
            record.outbox.pop(path, None)
    elif command == "ZADD" and part == "live":
        record.live.add(rest[-1])
    elif command == "ZREM" and part == "live":
        record.live.difference_update(rest)


def _state(text: str) -> dict[str, Any]:
    """The state of a member; a test may have damaged one that it does not judge."""
    try:
        state = json.loads(text)
    except (ValueError, RecursionError):
        state = None
    return state if isinstance(state, dict) else {"status": "damaged", "changed_ms": 0}


@dataclass(frozen=True)
class Body:
    """One start of one task function."""

    started_at: float
    record: str
    path: str
    run: str
    attempt: int

    @classmethod
    def of(cls, started_at: float, dedupe_key: str, run: str, attempt: int) -> "Body":
        member = DedupeKey.parse(dedupe_key)
        return cls(started_at, member.record, str(member.path), run, attempt)


def read_journal(path: Path) -> list[Body]:
    """The task functions that ran, from the journal of real workers.

    A line that SIGKILL cut is left out: its process died in the first statement of the function.
    """
    lines = path.read_text().splitlines() if path.exists() else []
    notes = [note for line in lines if (note := _whole(line)) is not None]
    return [Body.of(note["started_at"], note["dedupe"], note["run"], note["attempt"]) for note in notes]


def _whole(line: str) -> dict[str, Any] | None:
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None


@dataclass
class Verdict:
    """What became of one case."""

    as_expected: bool = True
    bodies: int = 0
    ran_again: int = 0
    misfired: int = 0
    problems: list[str] = field(default_factory=list)

    def wrong(self, problem: str) -> None:
        self.problems.append(problem)


def verify(case: str, scenario: Scenario, history: RedisHistory, journal: dict[str, list[Body]]) -> Verdict:
    """Compare what happened with what must happen.

    Args:
        case: Name of the case.
        scenario: Its scenario.
        history: Everything that was written to Redis.
        journal: The task functions that ran, by record.
    """
    verdict = Verdict()
    keys = history.flows.get(case, set())
    if len(keys) != 1:
        verdict.as_expected = False
        verdict.wrong(f"{len(keys)} flows were started")
        return verdict
    (key,) = keys
    reached: list[str] = []
    found = _tree(history, key, reached)
    if found != scenario.expected:
        verdict.as_expected = False
        verdict.wrong(f"ended as {json.dumps(found)}")
    _verify_results(verdict, scenario, history, key)
    for each in reached:
        _verify_record(verdict, each, history.records[each], journal.get(each, []))
    _verify_callbacks(verdict, scenario.expected, found)
    return verdict


def _tree(history: RedisHistory, key: str, reached: list[str]) -> Tree:
    reached.append(key)
    record = history.records[key]
    members: dict[str, Any] = {}
    for path, member in record.members.items():
        nested = member.nested
        name = _normal(path)
        members[name if name not in members else path] = _tree(history, nested, reached) if nested else member.status
    return {"status": record.header.get("status"), "members": dict(sorted(members.items()))}


def _normal(path: str) -> str:
    """The path of a user's run without its random part; a scenario has one such run."""
    if not path.startswith("@"):
        return path
    _, mark, callback = path.partition(".")
    return f"@{mark}{callback}"


def _verify_results(verdict: Verdict, scenario: Scenario, history: RedisHistory, key: str) -> None:
    found = {_normal(path): json.loads(text) for path, text in history.records[key].results.items()}
    for path, wanted in scenario.results.items():
        value = found.get(path)
        kind = value.get("type") if isinstance(value, dict) else None
        if value != wanted and kind not in scenario.also:
            verdict.as_expected = False
            verdict.wrong(f"{path} came to {value}")


def _verify_record(verdict: Verdict, key: str, record: Record, bodies: list[Body]) -> None:
    if record.outbox:
        verdict.wrong(f"{key}: never sent: {sorted(record.outbox)}")
    if record.live:
        verdict.wrong(f"{key}: still listed as live: {sorted(record.live)}")
    for path, member in record.members.items():
        if member.left_an_end:
            verdict.wrong(f"{key}#{path} went on after it had ended: {member.states}")
        for epoch, owners in member.owners().items():
            if len(owners) > 1:
                verdict.wrong(f"{key}#{path}/{epoch} was admitted for {len(owners)} runs")
    admitted = Counter((body.path, body.run, body.attempt) for body in bodies)
    for (path, run, attempt), count in admitted.items():
        if count > 1:
            verdict.wrong(f"{key}#{path}: attempt {attempt} of {run} ran its body {count} times")
    verdict.bodies += len(bodies)
    for body in bodies:
        done_at = record.members[body.path].done_at
        if done_at is not None and body.started_at * 1000 > done_at + 1:
            verdict.ran_again += 1
            verdict.wrong(
                f"{key}#{body.path} ran again {body.started_at * 1000 - done_at:.0f} ms after it had succeeded"
            )


def _verify_callbacks(verdict: Verdict, expected: Tree, found: Tree) -> None:
    """Count callbacks that did not end as expected, and callbacks that are not expected."""
    wanted, got = dict(_callbacks(expected)), dict(_callbacks(found))
    for path in wanted.keys() | got.keys():
        if wanted.get(path) != got.get(path):
            verdict.misfired += 1


def _callbacks(node: Tree, parent: str = "") -> Iterator[tuple[str, str]]:
    for path, member in node["members"].items():
        place = f"{parent}/{path}"
        if "." in path:
            yield place, member if isinstance(member, str) else member["status"]
        if isinstance(member, dict):
            yield from _callbacks(member, place)
