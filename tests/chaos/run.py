"""Runs flows on a stage while a fault happens, and counts how they ended."""

import asyncio
import json
import random
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mageflow.errors import DispatchError, StoreUnavailableError
from mageflow.testing.engine_api import rows_of
from tests.chaos.faults import Fault
from tests.chaos.stage import Stage
from tests.chaos.worker import SUCCESSES_FILE
from tests.flows.crash_injection.progress import read_progress, read_state
from tests.flows.crash_injection.scenarios import SCENARIOS, Scenario
from tests.flows.crash_injection.verify import JOURNAL_FILE, Body, RedisHistory, read_journal, verify

FLOWS = tuple(
    each for each in SCENARIOS if each.name in {"chain", "failing chain", "swarm", "swarm in chain", "chain in swarm"}
)
"""Each has success or error callbacks."""

START_EVERY_SECONDS = 0.1
FAULT_AFTER = 0.25
"""The share of flows that are started when the fault begins."""

_OUTAGE = '{"event": "mageflow.redis.outage"'

STUCK_SECONDS = 180.0
"""After the fault and the last start; the engine and the reconciler need some of it."""


@dataclass
class Flow:
    """One flow."""

    name: str
    scenario: Scenario
    key: str = ""
    problem: str = ""


@dataclass
class Row:
    """How the flows of one fault ended.

    Attributes:
        done: They ended as they must, callbacks included.
        lost: They ended otherwise, or were never started.
        doubled: Bodies that ran again after they had succeeded.
        stuck: They did not end.
        unrecorded: Bodies that ran again after they had returned on a worker that died before it recorded that, or that
            Hatchet took for dead: a machine that is too busy for heartbeats.
        outages: How often the workers reported an outage of Redis, by its reason.
    """

    fault: str
    text: str
    seed: int
    flows: int = 0
    done: int = 0
    lost: int = 0
    doubled: int = 0
    stuck: int = 0
    unrecorded: int = 0
    seconds: float = 0.0
    outages: dict[str, int] = field(default_factory=dict[str, int])
    problems: list[str] = field(default_factory=list[str])

    @property
    def is_right(self) -> bool:
        """Nothing lost, doubled or stuck."""
        return not (self.problems or self.lost or self.doubled or self.stuck)


async def run(fault: Fault, flows: int, seed: int) -> Row:
    """Bring about one fault while flows run."""
    started = time.monotonic()
    row = Row(fault.name, fault.text, seed, flows)
    with tempfile.TemporaryDirectory(prefix="mageflow-chaos-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        async with Stage(folder, fault.needs) as stage:
            wanted = [Flow(f"{number}", FLOWS[number % len(FLOWS)]) for number in range(flows)]
            await _run_flows(stage, fault, wanted, random.Random(seed))
            given_on = set[str]() if fault.kills_workers else await asyncio.to_thread(_given_on, stage, folder)
            history = RedisHistory.read(*stage.histories)
        history.flows = {each.name: {each.key} for each in wanted if each.key}
        _judge(row, fault, wanted, history, folder, given_on)
        row.outages = _outages(folder)
        if fault.outage and fault.outage not in row.outages:
            row.problems.append(f"the fault did not reach the workers: they reported {row.outages}")
    row.seconds = time.monotonic() - started
    return row


async def _run_flows(stage: Stage, fault: Fault, flows: list[Flow], chance: random.Random) -> None:
    async def happen() -> None:
        await asyncio.sleep(len(flows) * START_EVERY_SECONDS * FAULT_AFTER)
        await fault.happen(stage, chance)

    async with asyncio.TaskGroup() as group:
        group.create_task(happen())
        for each in flows:
            group.create_task(_start(stage, each))
            await asyncio.sleep(START_EVERY_SECONDS)
    waiting = [each for each in flows if not each.problem]
    deadline = time.monotonic() + STUCK_SECONDS
    async with stage.reader() as reader:
        while waiting and time.monotonic() < deadline:
            waiting = [each for each in waiting if not (await read_progress(reader, {each.key})).is_over]
            await asyncio.sleep(0.3)
        for each in waiting:
            each.problem = f"did not end: {await read_state(reader, each.key)}"


async def _start(stage: Stage, flow: Flow) -> None:
    """Create a flow and start it, as often as Redis or Hatchet is away: a second start changes nothing."""
    deadline = time.monotonic() + STUCK_SECONDS

    async def start(signature: Any, message: dict[str, Any]) -> None:
        while True:
            try:
                await signature.aio_run_no_wait(message)
            except (StoreUnavailableError, DispatchError) as error:
                flow.problem = f"was not started: {error!r}"
                if time.monotonic() > deadline:
                    return
                await asyncio.sleep(0.2)
            else:
                flow.key, flow.problem = signature.key, ""
                return

    while True:
        try:
            await flow.scenario.begin(stage.client, start)
        except StoreUnavailableError as error:
            flow.problem = f"was not created: {error!r}"
            if time.monotonic() > deadline:
                return
            await asyncio.sleep(0.2)
        else:
            return


def _given_on(stage: Stage, folder: Path) -> set[str]:
    """Runs of bodies that ran again which went to another worker, for want of heartbeats in time."""
    path = "/api/v1/stable/tasks/{run}/task-events"
    runs = {body.run for body in _after_success(folder, _journal(folder))}
    events = {run: rows_of(stage.engine.handshake, path.format(run=run)) for run in runs}
    return {run for run, rows in events.items() if any(row["eventType"] == "REASSIGNED" for row in rows)}


def _journal(folder: Path) -> dict[str, list[Body]]:
    journal: dict[str, list[Body]] = defaultdict(list)
    for body in read_journal(folder / JOURNAL_FILE):
        journal[body.record].append(body)
    return journal


def _judge(row: Row, fault: Fault, flows: list[Flow], history: RedisHistory, folder: Path, given_on: set[str]) -> None:
    journal = _journal(folder)
    again = _after_success(folder, journal)
    for each in flows:
        if each.problem:
            row.stuck += bool(each.key)
            row.lost += not each.key
            row.problems.append(f"{each.name} {each.scenario.name} {each.problem}")
            continue
        verdict = verify(each.name, each.scenario, history, journal)
        row.done += verdict.as_expected
        row.lost += not verdict.as_expected
        row.doubled += verdict.ran_again
        row.problems += [f"{each.name} {each.scenario.name} {problem}" for problem in verdict.problems]
    if fault.kills_workers:
        row.unrecorded = max(0, len(again) - row.doubled)
    else:
        without_reason = [body for body in again if body.run not in given_on]
        row.doubled = max(row.doubled, len(without_reason))
        row.unrecorded = max(0, len(again) - row.doubled)
        row.problems += [f"{body} ran again after it had returned" for body in without_reason]


def _outages(folder: Path) -> dict[str, int]:
    lines = (line for each in folder.glob("worker*.log") for line in each.read_text(errors="replace").splitlines())
    return dict(Counter(json.loads(line)["reason"] for line in lines if line.startswith(_OUTAGE)))


def _after_success(folder: Path, journal: dict[str, list[Body]]) -> list[Body]:
    """The bodies that started after the body of the same member had returned, whether or not Redis knew."""
    ended: dict[tuple[str, str], float] = {}
    path = folder / SUCCESSES_FILE
    for line in path.read_text().splitlines() if path.exists() else ():
        note = json.loads(line)
        if note["dedupe"]:
            member = Body.of(0.0, note["dedupe"], "", 0)
            ended.setdefault((member.record, member.path), note["ended_at"])
    return [
        body
        for bodies in journal.values()
        for body in bodies
        if body.started_at > ended.get((body.record, body.path), body.started_at)
    ]


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    lines = ["| fault | flows | done | lost | doubled | stuck | seconds |", "|---|---:|---:|---:|---:|---:|---:|"]
    lines += [
        f"| {row.text} | {row.flows} | {row.done} | {row.lost} | {row.doubled} | {row.stuck} | {row.seconds:.0f} |"
        for row in rows
    ]
    return "\n".join(lines)
