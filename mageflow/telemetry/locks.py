"""Signals about locks: requests, holds, leases and deadlocks.

A resource's declared name is a label; its key appears as a hash, unless the settings say ``raw``. Names of tasks and
locks of other processes are learned from lock records and accepted as label values, up to a limit.
"""

import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span

from mageflow.errors import CycleEdge
from mageflow.interceptors import (
    Deadlock,
    DeadlockCheck,
    LeaseLost,
    LeaseRenewal,
    LockAcquire,
    LockExpired,
    LockHold,
    LockWaiting,
    ResourceKey,
)
from mageflow.loop_stalls import blocked_seconds
from mageflow.telemetry.gauges import Sample
from mageflow.telemetry.names import events, metrics, traces
from mageflow.telemetry.names.metrics import OTHER
from mageflow.telemetry.propagation import span_context_of, traceparent_of
from mageflow.telemetry.recorder import Recorder
from mageflow.telemetry.span_scope import SpanScope
from mageflow.telemetry.spans import Attributes, hashed

__all__ = ["AcquireScope", "HoldScope", "LockTelemetry"]

_LEARNED_LIMIT: Final = 200
"""How many names of other processes become label values."""
_NANOSECONDS: Final = 1_000_000_000


class LockTelemetry:
    """Records lock events of one client, and is the `GaugeSource` of what the client holds and waits for."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.requests: set[LockAcquire] = set()
        self.holds: dict[LockHold, HoldScope] = {}
        self._declared: set[str] = set()
        self._learned: set[str] = set()
        self._pairs: set[tuple[str, str]] = set()
        self._is_listed = False

    # -- names ---------------------------------------------------------------------------------------------------

    def declare(self, name: str) -> None:
        """Accept a lock's name as a label value. Creates no series."""
        self._declared.add(name)

    def zero_declared(self) -> None:
        """Create the series of all declared locks with value 0. A worker calls this when it starts."""
        for name in list(self._declared):
            self.recorder.instruments.allow_lock(name)

    def ready(self, lock: str, task: str) -> None:
        """Create the series of a new pair with value 0: `increase()` does not count a series that starts at 1."""
        if (lock, task) in self._pairs:
            return
        self._pairs.add((lock, task))
        instruments = self.recorder.instruments
        if lock in self._declared or self._learn(lock):
            instruments.allow_lock(lock)
        for resolution in metrics.RESOLUTIONS:
            instruments.inc(metrics.DEADLOCKS, lock, task or OTHER, resolution, by=0.0)
        if not self._is_listed:
            self._is_listed = True
            self.recorder.add_gauges(self)

    def task(self, name: str) -> str:
        """A task's name as a label value; the name of a task of another process is learned."""
        if not name:
            return OTHER
        if name not in self.recorder.allowed_task_labels and self._learn(name):
            self.recorder.instruments.allow_task(name)
        return name

    def _learn(self, name: str) -> bool:
        if name not in self._learned and len(self._learned) >= _LEARNED_LIMIT:
            return False
        self._learned.add(name)
        return True

    def shown(self, resource: ResourceKey) -> str:
        """The key as spans and logs show it: a hash, or raw if the settings say so."""
        return hashed(resource.key, self.recorder.settings.lock_resource_detail) if resource.key else ""

    # -- gauges --------------------------------------------------------------------------------------------------

    def samples(self) -> Iterable[Sample]:
        """Gauges of the requests that wait and the locks that are held, by lock and task."""
        pairs = {(lock, task or OTHER): 0.0 for lock, task in list(self._pairs)}
        waiters, holders, oldest_wait, oldest_hold = dict(pairs), dict(pairs), dict(pairs), dict(pairs)
        edges: dict[tuple[str, str, str], float] = {}
        for call in list(self.requests):
            if not call.is_waiting or call.waiting_for is None:
                continue
            key = (call.waiting_for.name, call.task or OTHER)
            waiters[key] = waiters.get(key, 0.0) + 1
            oldest_wait[key] = max(oldest_wait.get(key, 0.0), call.elapsed_seconds)
            for holder in call.holders:
                edge = (key[1], holder.task or OTHER, key[0])
                edges[edge] = edges.get(edge, 0.0) + 1
        for hold in list(self.holds):
            key = (hold.resource.name, hold.task or OTHER)
            holders[key] = holders.get(key, 0.0) + 1
            oldest_hold[key] = max(oldest_hold.get(key, 0.0), hold.elapsed_seconds)
        for metric, series in (
            (metrics.LOCK_WAITERS, waiters),
            (metrics.LOCK_HOLDERS, holders),
            (metrics.LOCK_OLDEST_WAIT, oldest_wait),
            (metrics.LOCK_OLDEST_HOLD, oldest_hold),
        ):
            for labels, value in series.items():
                yield metric, labels, value
        for labels, value in edges.items():
            yield metrics.LOCK_WAIT_EDGES, labels, value

    # -- events --------------------------------------------------------------------------------------------------

    def waiting(self, call: LockWaiting) -> None:
        """Log a request that has waited for a second."""
        request = call.request
        resource = request.waiting_for or request.resources[0]
        self.recorder.log.emit(
            events.LOCK_WAITING, lock=resource.name, resource=self.shown(resource), holders=_holders(request)
        )

    def lost(self, call: LeaseLost) -> None:
        """Record a lease that was lost while its lock was held. Here it is counted, once, however it was noticed.

        A renewal reports it where Redis answers. Where Redis is away, or this process was stopped, only the clock does.
        """
        hold = call.hold
        blocked = blocked_seconds(self.recorder.settings.lock_lease_seconds)
        if self.recorder.guards.metric.may_record:
            with self.recorder.guards.metric.catching("lease_lost"):
                self.recorder.instruments.inc(metrics.LOCK_LEASE_RENEWALS, hold.resource.name, "lost")
        scope = self.holds.get(hold)
        if scope is not None and self.recorder.guards.trace.may_record:
            with self.recorder.guards.trace.catching("lease_lost"):
                scope.span.add_event(traces.EVENT_LOCK_LEASE_LOST, {traces.LOCK_NAME: hold.resource.name})
        self.recorder.log.emit(
            events.LOCK_LEASE_LOST,
            lock=hold.resource.name,
            held_s=round(hold.elapsed_seconds, 6),
            loop_blocked_s=None if blocked is None else round(blocked, 3),
            **_holder_of(hold),
        )

    def renewed(self, call: LeaseRenewal) -> None:
        """Count one lease of one renewal; a lost one is counted by `lost`."""
        if call.result != "lost" and self.recorder.guards.metric.may_record:
            with self.recorder.guards.metric.catching("lease_renewal"):
                self.recorder.instruments.inc(metrics.LOCK_LEASE_RENEWALS, call.resource.name, call.result)

    def checked(self, call: DeadlockCheck) -> None:
        """Record one search for a cycle."""
        if self.recorder.guards.metric.may_record:
            with self.recorder.guards.metric.catching("deadlock_check"):
                self.recorder.instruments.inc(metrics.DEADLOCK_CHECKS, call.result)
                if call.result != "error":
                    self.recorder.instruments.observe(metrics.DEADLOCK_CHECK_DURATION, call.duration_seconds)
        if call.result == "error":
            self.recorder.log.emit(events.DEADLOCK_CHECK_FAILED, error_type=call.error_type)

    def expired(self, call: LockExpired) -> None:
        """Log a lock that was taken from an owner whose lease had run out."""
        self.recorder.log.emit(
            events.LOCK_ORPHAN_REAPED, lock=call.resource.name, owner=call.owner.run_id, worker=call.owner.worker
        )

    def resolved(self, call: Deadlock) -> None:
        """Record a deadlock. Only the process that found it gets this event."""
        guards, victim = self.recorder.guards, call.victim
        if guards.metric.may_record:
            with guards.metric.catching("deadlock"):
                self.ready(victim.resource, victim.task)
                self.recorder.instruments.inc(
                    metrics.DEADLOCKS, victim.resource, self.task(victim.task), call.resolution
                )
                self.recorder.instruments.observe(metrics.DEADLOCK_CYCLE_LENGTH, len(call.cycle))
                self.recorder.recent.add_deadlock(call)
        trace_id = ""
        if guards.trace.may_record:
            with guards.trace.catching("deadlock"):
                trace_id = self._resolution_span(call)
        cycle = _cycle(call.cycle)
        self.recorder.log.emit(
            events.DEADLOCK_DETECTED,
            cycle=cycle,
            victim={"task": victim.task, "run_id": victim.run_id},
            policy=call.policy,
            deadlock_trace_id=trace_id,
        )
        self.recorder.log.emit(
            events.DEADLOCK_RESOLVED, resolution=call.resolution, took_s=round(call.duration_seconds, 6)
        )

    def _resolution_span(self, call: Deadlock) -> str:
        """Write the span of a deadlock, a trace of its own, and get the id of this trace; empty if none is recorded."""
        members = [found for each in call.traceparents if (found := span_context_of(each)) is not None]
        ended = time.time_ns()
        span = self.recorder.spans.start(
            traces.SPAN_RESOLVE_DEADLOCK,
            attributes={
                traces.DEADLOCK_CYCLE_LENGTH: len(call.cycle),
                traces.DEADLOCK_VICTIM_TASK: call.victim.task,
                traces.DEADLOCK_RESOLUTION: call.resolution,
                traces.DEADLOCK_MEMBERS: [each.run_id for each in call.cycle],
            },
            context=Context(),
            links=[Link(each) for each in members],
            start_time=ended - int(call.duration_seconds * _NANOSECONDS),
        )
        for each in _cycle(call.cycle):
            span.add_event(
                traces.EVENT_DEADLOCK_EDGE,
                {
                    traces.MESSAGING_DESTINATION_NAME: each["task"],
                    traces.MESSAGING_MESSAGE_ID: each["run_id"],
                    traces.DEADLOCK_WAITS_FOR: each["waits_for"],
                    traces.LOCK_NAME: each["lock"],
                },
                timestamp=ended,
            )
        span.end(ended)
        made = span.get_span_context()
        return f"{made.trace_id:032x}" if made.is_valid else ""


class AcquireScope(SpanScope[LockAcquire]):
    """Wraps one lock request, until it is granted or given up."""

    __slots__ = ("_locks",)

    def __init__(self, locks: LockTelemetry, call: LockAcquire) -> None:
        super().__init__(locks.recorder, call)
        self._locks = locks

    def __enter__(self) -> None:
        recorder, call, guards = self._recorder, self._call, self._recorder.guards
        self._locks.requests.add(call)
        if guards.metric.may_record:
            with guards.metric.catching("acquire.enter"):
                for resource in call.resources:
                    self._locks.ready(resource.name, call.task)
        if guards.trace.may_record:
            with guards.trace.catching("acquire.enter"):
                live = recorder.live.find(call.attempt)
                attributes: Attributes = {} if live is None else dict(live.ids)
                name = ", ".join(dict.fromkeys(each.name for each in call.resources))
                attributes[traces.LOCK_NAME] = name
                attributes[traces.LOCK_MODE] = "exclusive"
                if any(each.key for each in call.resources):
                    attributes[traces.LOCK_RESOURCE] = ", ".join(self._locks.shown(each) for each in call.resources)
                span = recorder.spans.start(traces.SPAN_ACQUIRE, name, attributes)
                self._open(span)
                call.traceparent = traceparent_of(span.get_span_context()) or call.traceparent

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        recorder, call, guards = self._recorder, self._call, self._recorder.guards
        try:
            if guards.metric.may_record:
                with guards.metric.catching("acquire.exit"):
                    live = recorder.live.find(call.attempt)
                    exemplar = live.exemplar if live is not None else None
                    for resource in call.resources:
                        recorder.instruments.inc(metrics.LOCK_ACQUISITIONS, resource.name, call.outcome)
                        recorder.instruments.observe(
                            metrics.LOCK_WAIT, call.waited_seconds, resource.name, exemplar=exemplar
                        )
                    for holder in call.holders:
                        self._locks.task(holder.task)
            self._log()
            with guards.trace.catching("acquire.exit"):
                if self._span is not None:
                    self._close(self._span, error)
        finally:
            self._locks.requests.discard(call)
            self._leave("acquire.exit")

    def _log(self) -> None:
        recorder, call = self._recorder, self._call
        waited = round(call.waited_seconds, 6)
        if call.outcome == "acquired":
            for resource in call.resources:
                recorder.log.emit(
                    events.LOCK_ACQUIRED, lock=resource.name, resource=self._locks.shown(resource), waited_s=waited
                )
        elif call.outcome == "timeout":
            resource = call.waiting_for or call.resources[0]
            recorder.log.emit(
                events.LOCK_TIMEOUT,
                lock=resource.name,
                resource=self._locks.shown(resource),
                waited_s=waited,
                holders=_holders(call),
            )

    def _close(self, span: Span, error: BaseException | None) -> None:
        call = self._call
        span.set_attribute(traces.LOCK_OUTCOME, call.outcome)
        span.set_attribute(traces.LOCK_WAITED_S, call.waited_seconds)
        if call.queued_at:
            span.set_attribute(traces.LOCK_QUEUE_POSITION, call.queue_position)
            span.add_event(traces.EVENT_LOCK_QUEUED, timestamp=int(call.queued_at * _NANOSECONDS))
        for holder in call.holders:
            if (held_by := span_context_of(holder.traceparent)) is not None:
                span.add_link(held_by)
        if call.outcome == "acquired":
            span.add_event(traces.EVENT_LOCK_GRANTED)
        if call.outcome == "deadlock":
            cycle = [
                f"{each['task']} waits for {each['lock']} held by {each['waits_for']}" for each in _cycle(call.cycle)
            ]
            span.add_event(traces.EVENT_DEADLOCK_VICTIM, {traces.DEADLOCK_CYCLE: cycle})
        if call.outcome in ("timeout", "deadlock", "error"):
            self._recorder.spans.fail(span, error, "" if error is not None else call.outcome)
        span.end()


class HoldScope:
    """Wraps the time one lock is held. Entered and left in different contexts if a thread holds it."""

    __slots__ = ("_call", "_locks", "span")

    def __init__(self, locks: LockTelemetry, call: LockHold) -> None:
        self._locks = locks
        self._call = call
        self.span: Span = trace.INVALID_SPAN
        """The span in which it is held. It gets an event when the lease is lost."""

    def __enter__(self) -> None:
        with self._locks.recorder.guards.trace.catching("hold.enter"):
            live = self._locks.recorder.live.find(self._call.attempt)
            self.span = live.span if live is not None else trace.get_current_span()
        self._locks.holds[self._call] = self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        call, recorder = self._call, self._locks.recorder
        self._locks.holds.pop(call, None)
        held = call.elapsed_seconds
        if recorder.guards.metric.may_record:
            with recorder.guards.metric.catching("hold.exit"):
                recorder.instruments.observe(metrics.LOCK_HOLD, held, call.resource.name)
        recorder.log.emit(
            events.LOCK_RELEASED,
            lock=call.resource.name,
            resource=self._locks.shown(call.resource),
            held_s=round(held, 6),
            **_holder_of(call),
        )


def _holder_of(call: LockHold) -> dict[str, object]:
    """Fields that name the holder. A lease may be lost or released outside of its attempt's context."""
    attempt = call.attempt
    if attempt is None:
        return {}
    return {"task": call.task, "run_id": attempt.workflow_run_id, "attempt": attempt.attempt_number}


def _holders(call: LockAcquire) -> list[dict[str, Any]]:
    return [
        {
            "task": each.task,
            "run_id": each.run_id,
            "worker": each.worker,
            "trace_id": each.trace_id,
            "held_s": round(each.seconds, 3),
        }
        for each in call.holders
    ]


def _cycle(edges: tuple[CycleEdge, ...]) -> list[dict[str, str]]:
    """Each member and what it waits for: the next member holds it; the last member waits for the first."""
    return [
        {"task": edge.task, "run_id": edge.run_id, "waits_for": following.run_id, "lock": edge.resource}
        for edge, following in zip(edges, (*edges[1:], *edges[:1]), strict=True)
    ]
