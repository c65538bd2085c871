"""The numbers of one demo: from the worker's metrics, the spans of both processes, the worker's log and the results.

Every number is a count of recorded events, or a quantile or mean of recorded durations. None of them is a constant.
"""

import itertools
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mageflow.cli.demo.scenario import STAGGERED_TASK, TASKS, Results
from mageflow.cli.demo.shop import CHAIN, Run
from mageflow.cli.demo.shop.spans import SpanRecord
from mageflow.telemetry import names
from mageflow.telemetry.names import events, metrics, traces
from mageflow.testing import Samples

__all__ = ["FlowSummary", "StaggeredRun", "Summary", "TaskSummary", "max_concurrent", "quantile", "summarize"]


@dataclass(frozen=True, slots=True)
class TaskSummary:
    """One task."""

    task: str
    shows: str
    runs: int
    """Started runs."""
    succeeded: int
    """Runs with a result."""
    failed: int
    """Runs that ended with an error."""
    outcomes: Mapping[str, int]
    """Attempts by outcome, from the worker's metrics. Outcomes that did not occur are left out."""
    p50_seconds: float | None
    """Duration of an attempt without its stagger, from spans."""
    p95_seconds: float | None


@dataclass(frozen=True, slots=True)
class StaggeredRun:
    """One delayed attempt, from its spans."""

    run_id: str
    delay_seconds: float
    body_seconds: float
    total_seconds: float
    outcome: str


@dataclass(frozen=True, slots=True)
class FlowSummary:
    """One chain or swarm."""

    kind: str
    name: str
    runs: int
    """Attempts of its steps or items, from spans. Callbacks are left out."""
    outcomes: Mapping[str, int]
    """Flows by outcome, from the worker's metrics."""
    seconds: float | None
    """From start to end, from the span of the flow."""
    handover_seconds: float | None
    """From the end of a step to the start of the next step: the mean of all flows of this kind, from metrics."""
    max_concurrent: int
    """How many bodies of its attempts ran at the same time, from spans."""
    traces: int
    """How many traces its attempts are in."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything that the report shows and that the expectations compare."""

    seconds: float
    tasks: tuple[TaskSummary, ...]
    staggered: tuple[StaggeredRun, ...]
    """Shortest delay first."""
    extensions: Mapping[str, int]
    """Timeout extensions of the staggered task, by result."""
    extended_seconds: float
    """Sum of the granted extensions."""
    signature_loads: Mapping[str, int]
    """By result."""
    signature_load_seconds: float
    """Mean."""
    flows: tuple[FlowSummary, ...]
    deadlocks: tuple[Mapping[str, Any], ...]
    """Their log events: the cycle of tasks and locks, the victim, the policy that chose it."""
    deadlocks_by_resolution: Mapping[str, int]
    """From metrics."""
    enqueued: int
    """Runs that this program sent to Hatchet. The steps and items that flows send are left out."""
    telemetry_errors: int
    span_count: int
    trace_count: int
    orphan_spans: tuple[str, ...]
    """Names of spans whose parent was not exported."""
    log_events: Mapping[str, int]
    """Events of mageflow in the worker's log, by name."""
    waterfall: tuple[SpanRecord, ...]
    """The spans of one staggered run, in the order they started."""
    chain_waterfall: tuple[SpanRecord, ...]
    """The spans of the chain, in the order they started."""

    def outcomes(self, task: str) -> dict[str, int]:
        """The attempts of one task by outcome."""
        return dict(next(each.outcomes for each in self.tasks if each.task == task))


def summarize(results: Results, worker: Samples, own: Samples, spans: Sequence[SpanRecord], log: Path) -> Summary:
    """Collect the numbers.

    Args:
        results: The runs and their results.
        worker: The worker's metrics at the end.
        own: The metrics of this process, which starts the runs.
        spans: The spans of both processes, in the order they started.
        log: The worker's log: JSON lines, and possibly other lines.
    """
    exported = {span.span_id for span in spans}
    logged = _logged_events(log)
    load_time = metrics.SIGNATURE_LOAD_DURATION.name
    return Summary(
        seconds=results.seconds,
        tasks=tuple(_task(name, results, worker, spans) for name in TASKS),
        staggered=_staggered(spans),
        extensions=_counts(worker.by("result", metrics.TIMEOUT_EXTENSIONS.name, task=STAGGERED_TASK)),
        extended_seconds=worker.total(f"{metrics.TIMEOUT_EXTENSION.name}_sum", task=STAGGERED_TASK),
        signature_loads=_counts(worker.by("result", metrics.SIGNATURE_LOADS.name)),
        signature_load_seconds=_mean(worker, load_time) or 0.0,
        flows=tuple(_flow(run, worker, spans) for run in results.flows),
        deadlocks=tuple(event for event in logged if event["event"] == events.DEADLOCK_DETECTED.name),
        deadlocks_by_resolution=_counts(worker.by("resolution", metrics.DEADLOCKS.name)),
        enqueued=round(
            sum(own.total(metrics.TASKS_ENQUEUED.name, result="ok", source=each) for each in ("direct", "signature"))
        ),
        telemetry_errors=round(worker.total(metrics.TELEMETRY_ERRORS.name) + own.total(metrics.TELEMETRY_ERRORS.name)),
        span_count=len(spans),
        trace_count=len({span.trace_id for span in spans}),
        orphan_spans=tuple(span.name for span in spans if span.parent_id and span.parent_id not in exported),
        log_events=dict(sorted(Counter(event["event"] for event in logged).items())),
        waterfall=_waterfall(spans, traces.SPAN_STAGGER(STAGGERED_TASK)),
        chain_waterfall=_waterfall(spans, traces.SPAN_START_FLOW(CHAIN)),
    )


def _counts(values: Mapping[str, float]) -> dict[str, int]:
    return {name: round(value) for name, value in values.items() if value}


def _mean(worker: Samples, histogram: str, **labels: str) -> float | None:
    count = worker.total(f"{histogram}_count", **labels)
    return worker.total(f"{histogram}_sum", **labels) / count if count else None


def quantile(values: Iterable[float], share: float) -> float | None:
    """The smallest value that is at least as large as this share of the values. None if there are no values."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def _task(name: str, results: Results, worker: Samples, spans: Sequence[SpanRecord]) -> TaskSummary:
    runs = results.of(name)
    slept = {
        span.parent_id: float(span.attributes.get(traces.STAGGER_SLEPT_S, span.seconds))
        for span in spans
        if span.name == traces.SPAN_STAGGER(name)
    }
    durations = [
        span.seconds - slept.get(span.span_id, 0.0) for span in spans if span.name == traces.SPAN_PROCESS(name)
    ]
    return TaskSummary(
        task=name,
        shows=TASKS[name].shows,
        runs=len(runs),
        succeeded=sum(1 for run in runs if run.output is not None),
        failed=sum(1 for run in runs if run.error is not None),
        outcomes=_counts(worker.by("outcome", metrics.TASK_RUNS.name, task=name)),
        p50_seconds=quantile(durations, 0.5),
        p95_seconds=quantile(durations, 0.95),
    )


def _staggered(spans: Sequence[SpanRecord]) -> tuple[StaggeredRun, ...]:
    processes = {span.span_id: span for span in spans if span.name == traces.SPAN_PROCESS(STAGGERED_TASK)}
    bodies = {span.parent_id: span.seconds for span in spans if span.name == traces.SPAN_EXECUTE(STAGGERED_TASK)}
    runs = [
        StaggeredRun(
            run_id=str(process.attributes.get(traces.HATCHET_WORKFLOW_RUN_ID, "")),
            delay_seconds=float(span.attributes[traces.STAGGER_DELAY_S]),
            body_seconds=bodies.get(process.span_id, 0.0),
            total_seconds=process.seconds,
            outcome=str(process.attributes.get(traces.TASK_OUTCOME, "")),
        )
        for span in spans
        if span.name == traces.SPAN_STAGGER(STAGGERED_TASK) and (process := processes.get(span.parent_id)) is not None
    ]
    return tuple(sorted(runs, key=lambda run: run.delay_seconds))


def _flow(run: Run, worker: Samples, spans: Sequence[SpanRecord]) -> FlowSummary:
    members = members_of(run.name, spans)
    own = [span for span in spans if span.name == traces.SPAN_FLOW(run.name) and traces.FLOW_KIND in span.attributes]
    return FlowSummary(
        kind=run.kind,
        name=run.name,
        runs=len(members),
        outcomes=_counts(worker.by("outcome", metrics.FLOWS_FINISHED.name, flow=run.kind, flow_name=run.name)),
        seconds=own[0].seconds if own else None,
        handover_seconds=_mean(worker, metrics.FLOW_HANDOVER.name, flow=run.kind),
        max_concurrent=max_concurrent(members, spans),
        traces=len({span.trace_id for span in members}),
    )


def members_of(flow: str, spans: Iterable[SpanRecord]) -> list[SpanRecord]:
    """The spans of the attempts of a flow's steps or items, without its callbacks."""
    callback = traces.SPAN_PROCESS("support.notify")
    return [
        span
        for span in spans
        if span.kind == "consumer" and span.attributes.get(traces.FLOW_NAME) == flow and span.name != callback
    ]


def max_concurrent(attempts: Sequence[SpanRecord], spans: Iterable[SpanRecord]) -> int:
    """How many bodies of these attempts ran at the same time.

    An attempt hands its place to the next item before its own span ends. So the spans of more attempts than may run at
    once can overlap for a moment; their bodies cannot.
    """
    ids = {attempt.span_id for attempt in attempts}
    bodies = [span for span in spans if span.parent_id in ids and span.name.startswith(traces.SPAN_EXECUTE())]
    changes = sorted([(body.start, 1) for body in bodies] + [(body.end, -1) for body in bodies])
    return max(itertools.accumulate((change for _, change in changes), initial=0))


def _waterfall(spans: Sequence[SpanRecord], name: str) -> tuple[SpanRecord, ...]:
    """Of the traces with a span of this name: the one with the most spans. Of several: the longest."""
    by_trace: dict[str, list[SpanRecord]] = {span.trace_id: [] for span in spans if span.name == name}
    for span in spans:
        if span.trace_id in by_trace:
            by_trace[span.trace_id].append(span)
    longest = max(by_trace.values(), key=lambda trace: (len(trace), trace[-1].end - trace[0].start), default=[])
    return tuple(longest)


_EVENTS = frozenset(event.name for event in names.EVENTS)


def _logged_events(log: Path) -> list[dict[str, Any]]:
    """The events of mageflow in a log."""
    found: list[dict[str, Any]] = []
    for line in log.read_text("utf-8", errors="replace").splitlines() if log.exists() else ():
        if line.startswith("{"):
            try:
                event = json.loads(line)
            except ValueError:
                continue  # a line of another program
            if event.get("event") in _EVENTS:
                found.append(event)
    return found
