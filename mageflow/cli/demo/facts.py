"""What was heard: one set of facts from the worker's metrics, both processes' spans and the runs' results.

Nothing here is known beforehand and nothing is estimated: a number is a count of things that were told, or a quantile
of durations that were told.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mageflow.cli.demo.flow_facts import DeadlockFacts, FlowFacts, flow_facts
from mageflow.cli.demo.play import CAST, CHAIN, Play
from mageflow.cli.demo.spans import SpanRecord
from mageflow.cli.demo.tasks import CROWD_TIMEOUT, CROWD_WINDOW
from mageflow.telemetry import names
from mageflow.telemetry.names import metrics, traces
from mageflow.testing import Samples

__all__ = ["Facts", "StaggeredRun", "TaskFacts", "gather", "quantile"]

CROWD = "reserve_stock"


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """What one task did."""

    task: str
    what: str
    runs: int
    """As started."""
    succeeded: int
    """Runs with a result."""
    failed: int
    """Runs that ended with an error."""
    outcomes: Mapping[str, int]
    """Attempts by outcome, from the worker's metrics; outcomes that did not occur are left out."""
    p50_seconds: float | None
    """Of an attempt without its stagger, from spans."""
    p95_seconds: float | None


@dataclass(frozen=True, slots=True)
class StaggeredRun:
    """One attempt that was delayed, from its spans."""

    run_id: str
    delay_seconds: float
    body_seconds: float
    total_seconds: float
    outcome: str


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything the report shows and the expectations look at."""

    seconds: float
    tasks: tuple[TaskFacts, ...]
    window_seconds: float
    timeout_seconds: float
    staggered: tuple[StaggeredRun, ...]
    extensions: Mapping[str, int]
    """Of the crowd's timeouts, by result."""
    extended_seconds: float
    signature_loads: Mapping[str, int]
    """By result."""
    signature_load_seconds: float
    """Mean."""
    flows: tuple[FlowFacts, ...]
    deadlocks: tuple[DeadlockFacts, ...]
    """Told of, one event each."""
    deadlocks_by_resolution: Mapping[str, int]
    """Counted."""
    enqueued: int
    """By this program, one by one or from a signature; what flows send is not among them."""
    telemetry_errors: int
    span_count: int
    trace_count: int
    orphan_spans: tuple[str, ...]
    """Names of spans whose parent is in no export."""
    log_events: Mapping[str, int]
    waterfall: tuple[SpanRecord, ...]
    """The spans of one run of the crowd, in the order they started."""
    chain_waterfall: tuple[SpanRecord, ...]
    """The spans of the chain, in the order they started."""

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        fields = asdict(self)
        fields["waterfall"] = _trace_json(self.waterfall)
        fields["chain_waterfall"] = _trace_json(self.chain_waterfall)
        return fields


def _trace_json(trace: Sequence[SpanRecord]) -> list[dict[str, Any]]:
    return [
        {
            "name": span.name,
            "service": span.service,
            "span_id": span.span_id,
            "parent_id": span.parent_id,
            "links": span.links,
            "trace_id": span.trace_id,
            "offset_seconds": span.start - trace[0].start,
            "seconds": span.seconds,
            "events": [name for name, _ in span.events],
        }
        for span in trace
    ]


def gather(play: Play, worker: Samples, own: Samples, spans: Sequence[SpanRecord], log: Path) -> Facts:
    """Put together what was told.

    Args:
        play: The runs, as the demo saw them.
        worker: The worker's metrics at the end.
        own: The demo's own metrics: it starts runs.
        spans: The spans of both processes.
        log: The worker's log, JSON lines among others.
    """
    parents = {span.span_id for span in spans}
    loads = _counts(worker.by("result", metrics.SIGNATURE_LOADS.name))
    flows, deadlocks = flow_facts(play, worker, spans, log)
    load_time = metrics.SIGNATURE_LOAD_DURATION.name
    load_count = worker.total(f"{load_time}_count")
    return Facts(
        seconds=play.seconds,
        tasks=tuple(_task(name, play, worker, spans) for name in CAST),
        window_seconds=CROWD_WINDOW.total_seconds(),
        timeout_seconds=CROWD_TIMEOUT.total_seconds(),
        staggered=_staggered(spans),
        extensions=_counts(worker.by("result", metrics.TIMEOUT_EXTENSIONS.name, task=CROWD)),
        extended_seconds=worker.total(f"{metrics.TIMEOUT_EXTENSION.name}_sum", task=CROWD),
        signature_loads=loads,
        signature_load_seconds=worker.total(f"{load_time}_sum") / load_count if load_count else 0.0,
        flows=flows,
        deadlocks=deadlocks,
        deadlocks_by_resolution=_counts(worker.by("resolution", metrics.DEADLOCKS.name)),
        enqueued=round(
            sum(own.total(metrics.TASKS_ENQUEUED.name, result="ok", source=each) for each in ("direct", "signature"))
        ),
        telemetry_errors=round(worker.total(metrics.TELEMETRY_ERRORS.name) + own.total(metrics.TELEMETRY_ERRORS.name)),
        span_count=len(spans),
        trace_count=len({span.trace_id for span in spans}),
        orphan_spans=tuple(span.name for span in spans if span.parent_id and span.parent_id not in parents),
        log_events=_log_events(log),
        waterfall=_waterfall(spans, traces.SPAN_STAGGER(CROWD)),
        chain_waterfall=_waterfall(spans, traces.SPAN_START_FLOW(CHAIN)),
    )


def _counts(values: Mapping[str, float]) -> dict[str, int]:
    return {name: round(value) for name, value in values.items() if value}


def _task(name: str, play: Play, worker: Samples, spans: Sequence[SpanRecord]) -> TaskFacts:
    results = play.of(name)
    durations = [span.seconds - _slept(span, spans) for span in spans if span.name == traces.SPAN_PROCESS(name)]
    return TaskFacts(
        task=name,
        what=CAST[name].what,
        runs=len(results),
        succeeded=sum(1 for result in results if result.output is not None),
        failed=sum(1 for result in results if result.error is not None),
        outcomes=_counts(worker.by("outcome", metrics.TASK_RUNS.name, task=name)),
        p50_seconds=quantile(durations, 0.5),
        p95_seconds=quantile(durations, 0.95),
    )


def _slept(process: SpanRecord, spans: Iterable[SpanRecord]) -> float:
    return sum(
        float(span.attributes.get(traces.STAGGER_SLEPT_S, span.seconds))
        for span in spans
        if span.parent_id == process.span_id and span.name.startswith(traces.SPAN_STAGGER(""))
    )


def quantile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least this share of the values does not exceed; None of no values."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def _staggered(spans: Sequence[SpanRecord]) -> tuple[StaggeredRun, ...]:
    processes = {span.span_id: span for span in spans if span.name == traces.SPAN_PROCESS(CROWD)}
    bodies = {span.parent_id: span for span in spans if span.name == traces.SPAN_EXECUTE(CROWD)}
    runs = [
        StaggeredRun(
            run_id=str(process.attributes.get(traces.HATCHET_WORKFLOW_RUN_ID, "")),
            delay_seconds=float(span.attributes[traces.STAGGER_DELAY_S]),
            body_seconds=bodies[process.span_id].seconds if process.span_id in bodies else 0.0,
            total_seconds=process.seconds,
            outcome=str(process.attributes.get(traces.TASK_OUTCOME, "")),
        )
        for span in spans
        if span.name == traces.SPAN_STAGGER(CROWD) and (process := processes.get(span.parent_id)) is not None
    ]
    return tuple(sorted(runs, key=lambda run: run.delay_seconds))


def _waterfall(spans: Sequence[SpanRecord], name: str) -> tuple[SpanRecord, ...]:
    """Of the traces with a span of this name the one with the most spans, and of several the one that took longest."""
    by_trace: dict[str, list[SpanRecord]] = {span.trace_id: [] for span in spans if span.name == name}
    for span in spans:
        if span.trace_id in by_trace:
            by_trace[span.trace_id].append(span)
    if not by_trace:
        return ()
    return tuple(max(by_trace.values(), key=lambda trace: (len(trace), trace[-1].end - trace[0].start)))


_EVENTS = frozenset(event.name for event in names.EVENTS)


def _log_events(log: Path) -> dict[str, int]:
    """How often each event of mageflow's stands in the worker's log."""
    seen: Counter[str] = Counter()
    for line in log.read_text("utf-8", errors="replace").splitlines() if log.exists() else ():
        if line.startswith("{"):
            try:
                event = json.loads(line).get("event")
            except ValueError:
                continue  # a line of somebody else's that only looks like an event
            if event in _EVENTS:
                seen[event] += 1
    return dict(sorted(seen.items()))
