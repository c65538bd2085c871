"""One attempt: its span, its log context and its metrics; the function inside it, on the loop and in its thread.

The scopes are classes with slots because they run around every attempt; a generator costs twice as much. Each step has
a guard of its own, so that a broken exporter does not lose the log events. The exit removes the attempt from the live
attempts in any case.
"""

import asyncio
import time
from contextvars import Token
from types import TracebackType

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context

from mageflow.interceptors import Attempt
from mageflow.telemetry import instrumentor
from mageflow.telemetry.attempt_events import log_end, log_start
from mageflow.telemetry.clock import CLOCK_TOLERANCE_SECONDS
from mageflow.telemetry.live import LiveAttempt, run_seconds, used_ratio
from mageflow.telemetry.logs import BOUND, bind, unbind
from mageflow.telemetry.names import metrics, traces
from mageflow.telemetry.process_span import attempt_ids
from mageflow.telemetry.propagation import arrive, queue_wait_seconds
from mageflow.telemetry.recorder import Recorder
from mageflow.telemetry.spans import Attributes
from mageflow.types import Outcome

__all__ = ["AttemptScope", "ExecuteScope"]


class AttemptScope:
    """Around one attempt."""

    __slots__ = (
        "_attempt",
        "_bound",
        "_cause",
        "_ended_at",
        "_is_owner",
        "_live",
        "_possible_wait",
        "_recorder",
        "_token",
    )

    def __init__(self, recorder: Recorder, attempt: Attempt) -> None:
        self._recorder = recorder
        self._attempt = attempt
        self._live = LiveAttempt(attempt)
        self._bound: BOUND | None = None
        self._is_owner = False
        """True if the span is mageflow's own."""
        self._token: Token[Context] | None = None
        self._cause: BaseException | None = None
        self._ended_at: int | None = None
        self._possible_wait = 0.0

    # -- entry ---------------------------------------------------------------------------------------------------

    def __enter__(self) -> None:
        recorder, attempt, guards = self._recorder, self._attempt, self._recorder.guards
        live = self._live
        recorder.live.add(live)
        if attempt.task.name not in recorder.tasks:
            recorder.declare(attempt.task)
        with guards.clock.catching("queue_wait"):
            wait = self._queue_wait()
            if attempt.attempt_number == 1:
                live.queue_wait = wait
            elif wait is not None:
                # Of a run whose workers died before it began this is the wait. Hatchet knows whether they had begun.
                self._possible_wait, attempt.asks_whether_first = wait, True
                recorder.arrivals[attempt] = self
        wait = live.queue_wait
        if guards.trace.may_record:
            with guards.trace.catching("attempt.enter"):
                self._start_span()
        if guards.context.may_record:
            with guards.context.catching("attempt.bind"):
                live.bound_fields = live.log_fields()
                self._bound = bind(live.bound_fields)
        log_start(recorder, live)
        if guards.metric.may_record:
            with guards.metric.catching("attempt.enter"):
                recorder.instruments.zero_worker(
                    attempt.task.name, is_staggered=attempt.task.stagger_window_seconds is not None
                )
                if wait is not None:
                    recorder.instruments.observe(
                        metrics.TASK_QUEUE_WAIT, wait, attempt.task.name, exemplar=live.exemplar
                    )

    def _start_span(self) -> None:
        recorder, attempt, live = self._recorder, self._attempt, self._live
        task = attempt.task
        arrival = arrive(
            attempt.metadata,
            link_sources=recorder.settings.trace_link_sources,
            has_baggage=recorder.settings.propagate_baggage,
        )
        # The instrumentor makes no span for a batch: the current span is not the attempt's.
        theirs = None if task.is_batch else instrumentor.consumer_span()
        if theirs is None and not recorder.spans.may_record:
            live.span = arrival.sender or recorder.spans.pass_on(arrival.parent)
            if arrival.parent is not None:
                self._token = otel_context.attach(arrival.parent)
            self._name_trace()
            return
        live.ids = attempt_ids(attempt)
        attributes = recorder.processes.attributes(attempt, is_own=theirs is None)
        if live.queue_wait is not None:
            attributes[traces.QUEUE_WAIT_S] = live.queue_wait
        if arrival.is_external:
            attributes[traces.TRACE_ORIGIN] = "external"
        if theirs is None:
            live.span = recorder.spans.start_process(
                recorder.processes.name(task), attributes, arrival.parent, arrival.links
            )
            self._is_owner = True
            current = otel_context.get_current() if arrival.parent is None else arrival.parent
            self._token = otel_context.attach(trace.set_span_in_context(live.span, current))
        else:
            live.span = theirs
            recorder.warn_of_exported_payloads()
            if arrival.is_new_root:
                attributes[traces.TRACE_PARENTED_BY] = "hatchet"
            theirs.set_attributes(attributes)
            for link in arrival.links:
                theirs.add_link(link.context)
        self._name_trace()

    def _name_trace(self) -> None:
        live, context = self._live, self._live.span.get_span_context()
        if not context.is_valid:
            return
        flags = context.trace_flags
        trace_id, span_id = f"{context.trace_id:032x}", f"{context.span_id:016x}"
        self._attempt.traceparent = f"00-{trace_id}-{span_id}-{flags:02x}"
        live.trace_fields = {"trace_id": trace_id, "span_id": span_id, "trace_sampled": flags.sampled}
        if flags.sampled:
            live.exemplar = {"trace_id": trace_id, "span_id": span_id}

    def _queue_wait(self) -> float | None:
        attempt = self._attempt
        if attempt.is_resumed:
            return None
        wait = queue_wait_seconds(attempt.metadata, time.time())
        if wait is None or wait >= 0.0:
            return wait
        if wait < -CLOCK_TOLERANCE_SECONDS:
            self._recorder.guards.clock.count("queue_wait", "ClockSkew")
        return 0.0

    def observe_late_wait(self) -> None:
        """Record the queue wait of an attempt after the first: Hatchet has answered that none before it had begun."""
        live, guards = self._live, self._recorder.guards
        live.queue_wait = wait = self._possible_wait
        if guards.trace.may_record and live.span.is_recording():
            with guards.trace.catching("attempt.arrival"):
                live.span.set_attribute(traces.QUEUE_WAIT_S, wait)
        if guards.metric.may_record:
            with guards.metric.catching("attempt.arrival"):
                self._recorder.instruments.observe(
                    metrics.TASK_QUEUE_WAIT, wait, self._attempt.task.name, exemplar=live.exemplar
                )

    # -- exit ----------------------------------------------------------------------------------------------------

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        attempt = self._attempt
        try:
            attempt.end()
            # Not `or`: a program's exception may define __bool__, and that may raise.
            self._cause = error if attempt.exception is None else attempt.exception
            if attempt.is_unconfirmed:
                self._ended_at = time.time_ns()
                self._recorder.unconfirmed[attempt] = self
                if not self._is_owner:  # the instrumentor ends the span soon
                    self._trace(attempt.outcome)
            else:
                self._record(None if attempt.evicted else attempt.outcome or _inferred(error))
        finally:
            self._recorder.live.remove(attempt)
            self._close()

    def confirm(self) -> None:
        """Record the end of an attempt that was left unconfirmed. Its span has the time of the end."""
        try:
            self._record(self._attempt.outcome)
        finally:
            self._ended_at, ended_at = None, self._ended_at
            self._end_spans(ended_at)

    def _record(self, outcome: Outcome | None) -> None:
        guards = self._recorder.guards
        if guards.metric.may_record:
            with guards.metric.catching("attempt.exit"):
                self._measure(outcome, self._cause)
            with guards.exposition.catching("attempt.exit"):
                self._recorder.recent.add(
                    self._attempt,
                    self._live.span,
                    outcome=outcome,
                    error=self._cause,
                    queue_wait=self._live.queue_wait,
                    ended_at=time.time() if self._ended_at is None else self._ended_at / 1e9,
                )
        with guards.log.catching("attempt.exit"):
            log_end(self._recorder, self._live, outcome, self._cause)
        self._trace(outcome)

    def _trace(self, outcome: Outcome | None) -> None:
        guards = self._recorder.guards
        if guards.trace.may_record and self._live.span.is_recording():
            with guards.trace.catching("attempt.exit"):
                self._complete_span(outcome, self._cause)

    def _measure(self, outcome: Outcome | None, error: BaseException | None) -> None:
        instruments, attempt, task = self._recorder.instruments, self._attempt, self._attempt.task.name
        for stage, seconds in attempt.stage_seconds.items():
            instruments.inc(metrics.TASK_STAGE_SECONDS, task, stage, by=seconds)
        if outcome is None:
            return
        for expected, answer in attempt.corrections:
            instruments.inc(metrics.TASK_OUTCOMES_CORRECTED, expected, answer)
        if not attempt.member_outcomes:
            self._measure_run(outcome, error)
        for each, why in zip(attempt.member_outcomes, attempt.member_errors, strict=True):
            self._measure_run(each, why)

    def _measure_run(self, outcome: Outcome, error: BaseException | None) -> None:
        instruments, attempt, task = self._recorder.instruments, self._attempt, self._attempt.task.name
        instruments.inc(metrics.TASK_RUNS, task, outcome)
        if outcome in ("cancelled", "skipped"):
            return
        instruments.observe(
            metrics.TASK_RUN_DURATION,
            run_seconds(attempt),
            task,
            "ok" if outcome == "succeeded" else "error",
            exemplar=self._live.exemplar,
        )
        if (used := used_ratio(attempt)) is not None:
            instruments.observe(metrics.TASK_TIMEOUT_USED, used, task)
        if outcome in ("failed", "retried") and error is not None:
            instruments.inc(metrics.TASK_FAILURES, task, type(error).__name__)

    def _complete_span(self, outcome: Outcome | None, error: BaseException | None) -> None:
        live = self._live
        live.span.set_attribute(traces.TASK_OUTCOME, outcome or "evicted")
        if attributes := self._known_at_end():
            live.span.set_attributes(attributes)
        spans = self._recorder.spans
        if outcome in ("failed", "retried", "timed_out"):
            cause = None if outcome == "timed_out" else error
            for each in (live.span, live.execute_span):
                if each is not None:
                    spans.fail(each, cause, "timed_out" if outcome == "timed_out" else "")
            # The instrumentor records the function's exception on its own span.
            if cause is not None and self._is_owner:
                spans.record(live.span, cause, self._ended_at)
        if not self._is_owner and live.span.is_recording():
            instrumentor.hide_exception_text(live.span, spans.exception_attributes)

    def _known_at_end(self) -> Attributes:
        """The attributes that an attempt has not had from the start. Empty for most attempts."""
        attempt = self._attempt
        attributes: Attributes = {}
        if attempt.will_retry:
            attributes[traces.TASK_WILL_RETRY] = True
        if attempt.extended_seconds:
            attributes[traces.TASK_TIMEOUT_EXTENDED_S] = attempt.extended_seconds
        if attempt.skip_reason:
            attributes[traces.SIGNATURE_STATUS] = attempt.skip_reason
        if attempt.flow_id:
            attributes[traces.MESSAGING_CONVERSATION_ID] = attempt.flow_id
            attributes[traces.FLOW_KIND] = attempt.flow_kind
            attributes[traces.FLOW_ID] = attempt.flow_id
            attributes[traces.FLOW_STEP] = attempt.flow_step
            if attempt.flow_name:
                attributes[traces.FLOW_NAME] = attempt.flow_name
            if attempt.flow_steps:
                attributes[traces.FLOW_STEP_COUNT] = attempt.flow_steps
        return attributes

    def _close(self) -> None:
        guards = self._recorder.guards
        if self._ended_at is None:
            self._end_spans()
        with guards.context.catching("attempt.close"):
            if self._token is not None:
                otel_context.detach(self._token)
            if self._bound is not None:
                unbind(self._bound)

    def _end_spans(self, ended_at: int | None = None) -> None:
        live = self._live
        with self._recorder.guards.trace.catching("attempt.close"):
            if live.execute_span is not None:
                live.execute_span.end(live.execute_ended_at or None)
            if self._is_owner:
                live.span.end(ended_at)


class ExecuteScope:
    """Around the function of an attempt that has other spans beside it.

    Binds what the signature load has added to the log context, the flow's name.
    """

    __slots__ = ("_bound", "_live", "_recorder", "_token")

    def __init__(self, recorder: Recorder, live: LiveAttempt) -> None:
        self._recorder = recorder
        self._live = live
        self._token: Token[Context] | None = None
        self._bound: BOUND | None = None

    def __enter__(self) -> None:
        live, guards = self._live, self._recorder.guards
        if guards.trace.may_record:
            with guards.trace.catching("execute.enter"):
                spans = self._recorder.spans
                name = self._recorder.processes.execute_name(live.attempt.task)
                live.execute_span = spans.start_stage(name, dict(live.stage_attributes(spans)))
                self._token = otel_context.attach(trace.set_span_in_context(live.execute_span))
        if guards.context.may_record:
            with guards.context.catching("execute.bind"):
                if added := live.added_log_fields():
                    self._bound = bind(added)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        live = self._live
        with self._recorder.guards.context.catching("execute.close"):
            if live.execute_span is not None:
                # The attempt ends the span, when its outcome is known.
                live.execute_ended_at = time.time_ns()
            if self._token is not None:
                otel_context.detach(self._token)
            if self._bound is not None:
                unbind(self._bound)


def _inferred(error: BaseException | None) -> Outcome:
    if error is None:
        return "succeeded"
    return "failed" if isinstance(error, Exception) and not isinstance(error, asyncio.CancelledError) else "cancelled"
