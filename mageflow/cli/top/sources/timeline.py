"""Single attempts as traces: what belongs together, and where its time went. Pure functions of a snapshot."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mageflow.cli.top.sources.snapshot import RunAttempt

__all__ = ["PARTS", "Segment", "TraceAttempt", "TraceView", "traces_of"]

PARTS: tuple[str, ...] = ("queue", "signature_load", "stagger", "lock_wait", "body", "callbacks", "retry")
"""Where the time of a trace goes, in the order of an attempt: its stages, and the wait before a first or later one."""

_STAGES = PARTS[1:-1]


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the bar of one attempt."""

    part: str
    """One of `PARTS`."""
    begin: float
    """Seconds since the trace began."""
    seconds: float


@dataclass(frozen=True, slots=True)
class TraceAttempt:
    """One line of a waterfall."""

    attempt: RunAttempt
    segments: tuple[Segment, ...]
    """The stages of an attempt in the order of `PARTS`: how often and when it changed between them is not known."""


@dataclass(frozen=True, slots=True)
class TraceView:
    """All attempts of one trace that are known, and where their time went."""

    id: str
    """The trace id; without tracing the id of the flow or of the run."""
    name: str
    """Of the flow; without one of the first task."""
    began_at: float
    """Epoch seconds at which the first run was enqueued, if that is known."""
    seconds: float
    """From there to the end of the last attempt, or until now."""
    lines: tuple[TraceAttempt, ...]
    budget: Mapping[str, float]
    """Seconds by part, over all attempts. Attempts that run side by side both count."""

    @property
    def is_running(self) -> bool:
        """Whether an attempt of it runs now."""
        return any(line.attempt.phase for line in self.lines)

    @property
    def outcome(self) -> str:
        """How the last attempt that ended did; empty while one runs."""
        return "" if self.is_running else max(self.lines, key=lambda line: line.attempt.ended_at).attempt.outcome


def traces_of(attempts: Iterable[RunAttempt]) -> tuple[TraceView, ...]:
    """The traces of these attempts; the one that began last comes first."""
    groups: dict[str, list[RunAttempt]] = {}
    for each in attempts:
        groups.setdefault(each.trace_id or each.flow_id or each.run_id, []).append(each)
    traces = [_trace(identity, sorted(group, key=lambda each: each.started_at)) for identity, group in groups.items()]
    return tuple(sorted(traces, key=lambda trace: -trace.began_at))


def _trace(identity: str, attempts: Sequence[RunAttempt]) -> TraceView:
    began = min(each.started_at - (each.queue_wait_s or 0.0) for each in attempts)
    previous: dict[str, RunAttempt] = {}
    lines: list[TraceAttempt] = []
    for each in attempts:
        lines.append(TraceAttempt(each, _segments(each, previous.get(each.task_run_id), began)))
        previous[each.task_run_id] = each
    budget = dict.fromkeys(PARTS, 0.0)
    for line in lines:
        for segment in line.segments:
            budget[segment.part] += segment.seconds
    flow = next((each for each in attempts if each.flow or each.flow_kind), None)
    return TraceView(
        id=identity,
        name=attempts[0].task if flow is None else flow.flow or flow.flow_kind,
        began_at=began,
        seconds=max(each.ended_at for each in attempts) - began,
        lines=tuple(lines),
        budget=budget,
    )


def _segments(attempt: RunAttempt, before: RunAttempt | None, began: float) -> tuple[Segment, ...]:
    found: list[Segment] = []
    at = attempt.started_at - began
    if attempt.queue_wait_s:
        found.append(Segment("queue", at - attempt.queue_wait_s, attempt.queue_wait_s))
    elif before is not None and attempt.started_at > before.ended_at:
        gap = attempt.started_at - before.ended_at
        found.append(Segment("retry", at - gap, gap))
    for stage in _STAGES:
        if seconds := attempt.stages.get(stage, 0.0):
            found.append(Segment(stage, at, seconds))
            at += seconds
    return tuple(found)
