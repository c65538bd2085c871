"""What was heard of the chain, the swarm and the deadlock."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mageflow.cli.demo.play import SWARM, FlowResult, Play
from mageflow.cli.demo.spans import SpanRecord
from mageflow.telemetry.names import events, metrics, traces
from mageflow.testing import Samples

__all__ = ["DeadlockFacts", "FlowFacts", "flow_facts", "most_at_once"]

STEPS = ("pick_parcel", "pack_parcel", "ship_parcel")
ITEM = "weigh_parcel"


@dataclass(frozen=True, slots=True)
class FlowFacts:
    """One chain or swarm."""

    kind: str
    name: str
    runs: int
    """Attempts, from spans."""
    outcomes: Mapping[str, int]
    """Flows by outcome, from the worker's metrics."""
    seconds: float | None
    """From start to close, from the flow's own span."""
    handover_seconds: float | None
    """From the end of a step to the start of the next: mean of all of this kind."""
    most_at_once: int
    """How many attempts ran at the same time, from spans."""
    traces: int
    """In how many traces its attempts stand."""


@dataclass(frozen=True, slots=True)
class DeadlockFacts:
    """One deadlock, from the event that told of it and the metrics that counted it."""

    cycle: tuple[Mapping[str, Any], ...]
    """Each task with the lock it waited for, and the run that held it."""
    victim: str
    """The task that gave way."""
    policy: str
    """The rule it was chosen by."""


def flow_facts(
    play: Play, worker: Samples, spans: Sequence[SpanRecord], log: Path
) -> tuple[tuple[FlowFacts, ...], tuple[DeadlockFacts, ...]]:
    """The flows of the play and the deadlocks of its movers."""
    flows = tuple(_flow(result, worker, spans) for result in play.flows)
    return flows, tuple(_deadlock(event) for event in _events(log, events.DEADLOCK_DETECTED.name))


def _flow(result: FlowResult, worker: Samples, spans: Sequence[SpanRecord]) -> FlowFacts:
    members = [span for span in spans if span.name in {traces.SPAN_PROCESS(task) for task in _tasks(result.name)}]
    own = [span for span in spans if span.name == traces.SPAN_FLOW(result.name) and traces.FLOW_KIND in span.attributes]
    handover = metrics.FLOW_HANDOVER.name
    handed = worker.total(f"{handover}_count", flow=result.kind)
    outcomes = worker.by("outcome", metrics.FLOWS_FINISHED.name, flow=result.kind, flow_name=result.name)
    return FlowFacts(
        kind=result.kind,
        name=result.name,
        runs=len(members),
        outcomes={name: round(count) for name, count in outcomes.items() if count},
        seconds=own[0].seconds if own else None,
        handover_seconds=worker.total(f"{handover}_sum", flow=result.kind) / handed if handed else None,
        most_at_once=most_at_once(members),
        traces=len({span.trace_id for span in members}),
    )


def _tasks(name: str) -> tuple[str, ...]:
    return (ITEM,) if name == SWARM else STEPS


def most_at_once(spans: Sequence[SpanRecord]) -> int:
    """The greatest number of these spans that were open at one moment."""
    moments = sorted([(span.start, 1) for span in spans] + [(span.end, -1) for span in spans])
    now = most = 0
    for _, change in moments:
        now += change
        most = max(most, now)
    return most


def _events(log: Path, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for line in log.read_text("utf-8", errors="replace").splitlines() if log.exists() else ():
        if line.startswith("{") and name in line:
            event = json.loads(line)
            if event.get("event") == name:
                found.append(event)
    return found


def _deadlock(event: Mapping[str, Any]) -> DeadlockFacts:
    return DeadlockFacts(tuple(event["cycle"]), str(event["victim"]["task"]), str(event["policy"]))
