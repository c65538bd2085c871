"""The attempts that run in this process now, and the gauges computed from them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import Span
from opentelemetry.util.types import AttributeValue

from mageflow.interceptors import Attempt, TaskInfo
from mageflow.telemetry.gauges import Sample
from mageflow.telemetry.names import metrics
from mageflow.telemetry.recent import StaggerNow, describe_running
from mageflow.telemetry.spans import Attributes, Spans

__all__ = ["LiveAttempt", "LiveAttempts", "run_seconds", "used_ratio"]


class LiveAttempt:
    """One running attempt, as everything that is recorded inside it needs it."""

    __slots__ = (
        "_stage_attributes",
        "attempt",
        "bound_fields",
        "context",
        "execute_ended_at",
        "execute_span",
        "exemplar",
        "has_stages",
        "ids",
        "near_timeout_logged",
        "queue_wait",
        "span",
        "stagger",
        "trace_fields",
    )

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        self._stage_attributes: Attributes | None = None
        self.bound_fields: Mapping[str, object] = {}
        """The `log_fields` that were bound when the attempt began."""
        self.execute_ended_at = 0
        """Nanoseconds since the epoch at which the function ended."""
        self.execute_span: Span | None = None
        self.exemplar: dict[str, str] | None = None
        """Trace and span id for histograms; None if the span is not sampled."""
        self.has_stages = False
        """True if a signature load or a stagger made a span: then the function gets an ``execute`` span beside it."""
        self.ids: Attributes = {}
        """Attributes of every span inside this attempt."""
        self.near_timeout_logged = False
        self.queue_wait: float | None = None
        """Seconds that the run waited for its first attempt; None for a retry, and if it is not known."""
        self.trace_fields: Mapping[str, object] | None = None
        """What `records.add_trace_context` adds for ``span``; None if the attempt is in no trace."""
        self.stagger: StaggerNow | None = None
        self.span: Span = trace.INVALID_SPAN
        """The span of the attempt: mageflow's, or that of the SDK's instrumentor."""

    def stage_attributes(self, spans: Spans) -> Mapping[str, AttributeValue]:
        """`ids` and what every span has, put together once: a signed attempt has two spans with them."""
        if self._stage_attributes is None:
            self._stage_attributes = spans.with_common(self.ids)
        return self._stage_attributes

    def added_log_fields(self) -> dict[str, object]:
        """The `log_fields` that are not bound yet, or with another value. Most attempts have none."""
        bound = self.bound_fields
        return {name: value for name, value in self.log_fields().items() if bound.get(name) != value}

    def log_fields(self) -> dict[str, object]:
        """Fields of every log event inside this attempt (`names.events.CONTEXT_FIELDS`)."""
        attempt = self.attempt
        fields: dict[str, object] = {
            "task": attempt.task.name,
            "run_id": attempt.workflow_run_id,
            "step_run_id": attempt.task_run_id,
            "attempt": attempt.attempt_number,
            "worker": attempt.worker_id,
        }
        if attempt.flow_id:
            fields["flow"] = attempt.flow_name or attempt.flow_kind
            fields["flow_id"] = attempt.flow_id
        if attempt.signature_id:
            fields["signature_id"] = attempt.signature_id
        return fields


class LiveAttempts:
    """Attempts between the entry and the exit of `Interceptor.attempt`. The scraping thread reads it at any time."""

    def __init__(self, near_timeout_ratio: float) -> None:
        self._ratio = near_timeout_ratio
        self._live: dict[Attempt, LiveAttempt] = {}
        self._orphans: set[Attempt] = set()
        self.served: tuple[TaskInfo, ...] = ()
        """Tasks of this process's workers: their gauges are 0, not absent, while no attempt runs."""

    def add(self, live: LiveAttempt) -> None:
        """Add an attempt that begins."""
        self._live[live.attempt] = live

    def remove(self, attempt: Attempt) -> None:
        """Remove an attempt that ended. If its synchronous function still runs, its thread is an orphan until then."""
        self._live.pop(attempt, None)
        if attempt.thread_running:
            self._orphans.add(attempt)

    def find(self, attempt: Attempt | None) -> LiveAttempt | None:
        """The record of a running attempt; None if it does not run here."""
        return None if attempt is None else self._live.get(attempt)

    def __len__(self) -> int:
        return len(self._live)

    def attempts(self) -> Sequence[Attempt]:
        """The attempts that run now."""
        return list(self._live)

    def running(self) -> Iterable[dict[str, Any]]:
        """The attempts that run now, as data for JSON."""
        for attempt, live in list(self._live.items()):
            yield describe_running(attempt, live.span, live.queue_wait, live.stagger)

    def near_timeout(self) -> Iterable[tuple[LiveAttempt, float]]:
        """Running attempts that have used most of their timeout, with the share they have used."""
        for attempt, live in list(self._live.items()):
            used = used_ratio(attempt)
            if used is not None and used > self._ratio:
                yield live, used

    def samples(self) -> Iterable[Sample]:
        """Attempts by task and phase, used slots, orphaned threads, and the timeouts of the served tasks."""
        in_flight: dict[tuple[str, ...], float] = {
            (info.name, phase): 0.0 for info in self.served for phase in metrics.PHASES
        }
        near: dict[tuple[str, ...], float] = {(info.name,): 0.0 for info in self.served}
        orphans = dict(near)
        used = {(pool,): 0.0 for pool in metrics.POOLS} if self.served else {}
        for attempt in list(self._live):
            task = attempt.task.name
            in_flight[task, attempt.phase] = in_flight.get((task, attempt.phase), 0.0) + 1
            used[attempt.task.pool,] = used.get((attempt.task.pool,), 0.0) + 1
        for live, _ in self.near_timeout():
            key = (live.attempt.task.name,)
            near[key] = near.get(key, 0.0) + 1
        for attempt in list(self._orphans):
            if attempt.thread_running:
                orphans[attempt.task.name,] = orphans.get((attempt.task.name,), 0.0) + 1
            else:
                self._orphans.discard(attempt)
        for metric, series in (
            (metrics.TASKS_IN_FLIGHT, in_flight),
            (metrics.TASKS_NEAR_TIMEOUT, near),
            (metrics.TASK_ORPHAN_THREADS, orphans),
            (metrics.WORKER_SLOTS_USED, used),
        ):
            for labels, value in series.items():
                yield metric, labels, value
        for info in self.served:
            yield metrics.TASK_TIMEOUT, (info.name,), info.execution_timeout_seconds
            if info.stagger_window_seconds is not None:
                yield metrics.STAGGER_WINDOW, (info.name,), info.stagger_window_seconds


def used_ratio(attempt: Attempt) -> float | None:
    """The share of its timeout, extensions included, that an attempt has used; None if it has no timeout."""
    timeout = attempt.timeout_seconds
    return attempt.elapsed_seconds / timeout if timeout > 0 else None


def run_seconds(attempt: Attempt) -> float:
    """How long an attempt has run, without the wait of its stagger."""
    return max(0.0, attempt.elapsed_seconds - attempt.stage_seconds.get("stagger", 0.0))
