"""One attempt, observed: its span, its log context, its place in the live table and its metrics.

Written as classes with slots because they run around every attempt; a generator costs twice as much. Each step is
guarded by itself, so that a broken exporter does not take the log events with it, and the live table is left in a
``finally``.
"""

import asyncio
import time
from contextvars import Token
from types import TracebackType

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span

from mageflow.errors import text_of
from mageflow.interceptors import Attempt
from mageflow.telemetry import instrumentor
from mageflow.telemetry.live import used_ratio
from mageflow.telemetry.logs import BOUND, bind, unbind
from mageflow.telemetry.names import events, metrics, traces
from mageflow.telemetry.propagation import arrive, queue_wait_seconds, traceparent_of
from mageflow.telemetry.recorder import Recorder
from mageflow.telemetry.spans import Attributes
from mageflow.types import Outcome, Phase, Stage

__all__ = ["AttemptScope"]

_CLOCK_TOLERANCE_SECONDS = 1.0
"""Hosts' clocks may differ by this much before it is worth telling."""

_PHASE_OF: dict[Stage, Phase] = {"signature_load": "loading", "stagger": "stagger", "lock_wait": "lock_wait"}


class AttemptScope:
    """Around one attempt."""

    __slots__ = (
        "_bound",
        "_execute",
        "_execute_ended_at",
        "_is_owner",
        "_recorder",
        "_token",
        "attempt",
        "context",
        "exemplar",
        "has_stages",
        "ids",
        "is_near_timeout_told",
        "span",
    )

    def __init__(self, recorder: Recorder, attempt: Attempt) -> None:
        self._recorder = recorder
        self._bound: BOUND | None = None
        self._execute: Span | None = None
        self._execute_ended_at = 0
        self._is_owner = False
        self._token: Token[Context] | None = None
        self.attempt = attempt
        self.context: Context | None = None
        """What is current around the body; attached again in the thread of a synchronous one."""
        self.exemplar: dict[str, str] | None = None
        self.has_stages = False
        """Whether loading or staggering made a span, so that the body needs one of its own."""
        self.ids: Attributes = {}
        """The attributes every span inside this attempt carries."""
        self.is_near_timeout_told = False
        self.span: Span = trace.INVALID_SPAN
        """The attempt's span: ours, or that of the SDK's instrumentor."""

    # -- entry ---------------------------------------------------------------------------------------------------

    def __enter__(self) -> None:
        recorder, attempt, guard = self._recorder, self.attempt, self._recorder.guard
        recorder.live.add(attempt, self)
        if attempt.task.name not in recorder.tasks:
            recorder.declare(attempt.task)
        if guard.traces.closed:
            with guard.traces.at("attempt.enter"):
                self._open()
        if guard.context.closed:
            with guard.context.at("attempt.bind"):
                self._bound = bind(self.log_fields())
        wait = None
        with guard.clock.at("queue_wait"):
            wait = self._queue_wait()
        if wait is not None and guard.traces.closed:
            with guard.traces.at("attempt.wait"):
                self.span.set_attribute(traces.QUEUE_WAIT_S, wait)
        recorder.log.emit(events.TASK_STARTED, queue_wait_s=None if wait is None else _seconds(wait))
        if guard.metrics.closed:
            with guard.metrics.at("attempt.enter"):
                recorder.instruments.zero_worker(
                    attempt.task.name, is_staggered=attempt.task.stagger_window_seconds is not None
                )
                if wait is not None:
                    recorder.instruments.observe(
                        metrics.TASK_QUEUE_WAIT, wait, attempt.task.name, exemplar=self.exemplar
                    )

    def log_fields(self) -> dict[str, object]:
        """What every record inside this attempt carries."""
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

    def _open(self) -> None:
        recorder, attempt = self._recorder, self.attempt
        task = attempt.task
        arrival = arrive(
            attempt.metadata,
            link_sources=recorder.settings.trace_link_sources,
            has_baggage=recorder.settings.propagate_baggage,
        )
        ids: Attributes = {
            traces.MESSAGING_DESTINATION_NAME: task.name,
            traces.MESSAGING_MESSAGE_ID: attempt.workflow_run_id,
            traces.MESSAGING_CLIENT_ID: attempt.worker_id,
            traces.HATCHET_WORKFLOW_RUN_ID: attempt.workflow_run_id,
            traces.HATCHET_STEP_RUN_ID: attempt.task_run_id,
            traces.HATCHET_WORKER_ID: attempt.worker_id,
        }
        if attempt.flow_id:
            ids[traces.MESSAGING_CONVERSATION_ID] = attempt.flow_id
        self.ids = ids
        attributes: Attributes = {
            **ids,
            traces.MESSAGING_OPERATION_NAME: "process",
            traces.MESSAGING_OPERATION_TYPE: "process",
            traces.TASK_ATTEMPT: attempt.attempt_number,
            traces.TASK_MAX_ATTEMPTS: attempt.max_attempts,
            traces.TASK_TIMEOUT_S: task.execution_timeout_seconds,
        }
        if task.code_function_name:
            attributes[traces.CODE_FUNCTION_NAME] = task.code_function_name
        if task.is_batch:
            attributes[traces.MESSAGING_BATCH_COUNT] = attempt.batch_size
        if source := attempt.metadata.get(traces.KEY_SOURCE):
            attributes[traces.ENQUEUE_SOURCE] = str(source)
        if arrival.is_external:
            attributes[traces.TRACE_ORIGIN] = "external"
        # Batches have no span of the instrumentor's; what is current then is somebody else's.
        theirs = None if task.is_batch else instrumentor.consumer_span()
        if theirs is None:
            self.span = recorder.spans.start(
                traces.SPAN_PROCESS, task.name, attributes, context=arrival.parent, links=arrival.links
            )
            self._is_owner = True
            current = otel_context.get_current() if arrival.parent is None else arrival.parent
            self._token = otel_context.attach(trace.set_span_in_context(self.span, current))
        else:
            self.span = theirs
            recorder.warn_of_exported_payloads()
            if arrival.is_new_root:
                attributes[traces.TRACE_PARENTED_BY] = "hatchet"
            attributes[traces.MESSAGING_SYSTEM] = traces.HATCHET_SYSTEM
            theirs.set_attributes(attributes)
            for link in arrival.links:
                theirs.add_link(link.context)
        self.context = otel_context.get_current()
        context = self.span.get_span_context()
        attempt.traceparent = traceparent_of(context) or attempt.traceparent
        if context.trace_flags.sampled:
            self.exemplar = {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}

    def _queue_wait(self) -> float | None:
        attempt = self.attempt
        if attempt.attempt_number != 1 or attempt.is_resumed:
            return None
        wait = queue_wait_seconds(attempt.metadata, time.time())
        if wait is None or wait >= 0.0:
            return wait
        if wait < -_CLOCK_TOLERANCE_SECONDS:
            self._recorder.guard.clock.count("queue_wait", "ClockSkew")
        return 0.0

    # -- exit ----------------------------------------------------------------------------------------------------

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        attempt, guard = self.attempt, self._recorder.guard
        try:
            attempt.charge()
            outcome = None if attempt.evicted else attempt.outcome or _inferred(error)
            # Not `or`: an exception may be falsy, and may raise when it is asked.
            cause = error if attempt.exception is None else attempt.exception
            if guard.metrics.closed:
                with guard.metrics.at("attempt.exit"):
                    self._measure(outcome, cause)
            with guard.logs.at("attempt.exit"):
                self._tell(outcome, cause)
            if guard.traces.closed:
                with guard.traces.at("attempt.exit"):
                    self._conclude(outcome, cause)
        finally:
            self._recorder.live.remove(attempt)
            self._close()

    def _measure(self, outcome: Outcome | None, error: BaseException | None) -> None:
        instruments, attempt, task = self._recorder.instruments, self.attempt, self.attempt.task.name
        for stage, seconds in attempt.stage_seconds.items():
            instruments.inc(metrics.TASK_STAGE_SECONDS, task, stage, by=seconds)
        if outcome is None:
            return
        instruments.inc(metrics.TASK_RUNS, task, outcome)
        if outcome in ("cancelled", "skipped"):
            return
        instruments.observe(
            metrics.TASK_RUN_DURATION,
            self._duration(),
            task,
            "ok" if outcome == "succeeded" else "error",
            exemplar=self.exemplar,
        )
        if (used := used_ratio(attempt)) is not None:
            instruments.observe(metrics.TASK_TIMEOUT_USED, used, task)
        if outcome in ("failed", "retried") and error is not None:
            instruments.inc(metrics.TASK_FAILURES, task, type(error).__name__)

    def _duration(self) -> float:
        return max(0.0, self.attempt.elapsed_seconds - self.attempt.stage_seconds.get("stagger", 0.0))

    def _tell(self, outcome: Outcome | None, error: BaseException | None) -> None:
        log, attempt = self._recorder.log, self.attempt
        if attempt.thread_running:
            log.emit(events.TASK_THREAD_ORPHANED, elapsed_s=_seconds(attempt.elapsed_seconds))
        duration = _seconds(self._duration())
        if outcome == "succeeded":
            log.emit(events.TASK_FINISHED, outcome=outcome, duration_s=duration)
        elif outcome in ("failed", "retried"):
            will_retry = attempt.will_retry or outcome == "retried"
            log.emit(
                events.TASK_FAILED,
                "warning" if will_retry else "error",
                exception=type(error).__name__,
                duration_s=duration,
                will_retry=will_retry,
                **self._detail(error),
            )
        elif outcome == "timed_out":
            log.emit(
                events.TASK_TIMED_OUT,
                timeout_s=attempt.task.execution_timeout_seconds,
                extended_s=_seconds(attempt.extended_seconds),
                elapsed_s=_seconds(attempt.elapsed_seconds),
                phase=self._phase(),
                will_retry=attempt.will_retry,
            )
        elif outcome == "cancelled":
            log.emit(events.TASK_CANCELLED, phase=self._phase(), duration_s=duration)
        elif outcome == "skipped":
            log.emit(events.TASK_SKIPPED, signature_status=attempt.skip_reason)

    def _phase(self) -> Phase:
        # "cancelling" says how it ended, not where it was.
        attempt = self.attempt
        return _PHASE_OF.get(attempt.stage, "running") if attempt.phase == "cancelling" else attempt.phase

    def _detail(self, error: BaseException | None) -> dict[str, object]:
        detail = self._recorder.settings.exception_detail
        if error is None or detail == "type":
            return {}
        return {"message": text_of(error), **({"exc_info": error} if detail == "full" else {})}

    def _conclude(self, outcome: Outcome | None, error: BaseException | None) -> None:
        span, attempt = self.span, self.attempt
        attributes: Attributes = {
            traces.TASK_OUTCOME: outcome or "evicted",
            traces.TASK_WILL_RETRY: attempt.will_retry,
            traces.TASK_TIMEOUT_EXTENDED_S: attempt.extended_seconds,
        }
        if attempt.signature_id:
            attributes[traces.SIGNATURE_ID] = attempt.signature_id
        if attempt.skip_reason:
            attributes[traces.SIGNATURE_STATUS] = attempt.skip_reason
        if attempt.flow_id:
            attributes[traces.MESSAGING_CONVERSATION_ID] = attempt.flow_id
            attributes[traces.FLOW_KIND] = attempt.flow_kind
            attributes[traces.FLOW_ID] = attempt.flow_id
            attributes[traces.FLOW_STEP] = attempt.flow_step
            if attempt.flow_name:
                attributes[traces.FLOW_NAME] = attempt.flow_name
                attributes[traces.FLOW_STEP_COUNT] = attempt.flow_steps
        span.set_attributes(attributes)
        spans = self._recorder.spans
        if outcome in ("failed", "retried", "timed_out"):
            cause = None if outcome == "timed_out" else error
            for each in (span, self._execute):
                if each is not None:
                    spans.fail(each, cause, "timed_out" if outcome == "timed_out" else "")
            # The instrumentor records an exception of the body on its own span by itself.
            if cause is not None and self._is_owner:
                spans.record(span, cause)

    def _close(self) -> None:
        guard = self._recorder.guard
        with guard.traces.at("attempt.close"):
            if self._execute is not None:
                self._execute.end(self._execute_ended_at or None)
            if self._is_owner:
                self.span.end()
        with guard.context.at("attempt.close"):
            if self._token is not None:
                otel_context.detach(self._token)
            if self._bound is not None:
                unbind(self._bound)

    # -- the body ------------------------------------------------------------------------------------------------

    def open_execute(self) -> Token[Context] | None:
        """Give the body a span of its own, when others stand beside it."""
        if not self.has_stages:
            return None
        self._execute = self._recorder.spans.start(traces.SPAN_EXECUTE, self.attempt.task.name, self.ids)
        token = otel_context.attach(trace.set_span_in_context(self._execute))
        self.context = otel_context.get_current()
        return token

    def close_execute(self) -> None:
        """Note when the body ended. The span is ended with the attempt, when its outcome is known."""
        if self._execute is not None:
            self._execute_ended_at = time.time_ns()


def _inferred(error: BaseException | None) -> Outcome:
    if error is None:
        return "succeeded"
    return "failed" if isinstance(error, Exception) and not isinstance(error, asyncio.CancelledError) else "cancelled"


def _seconds(value: float) -> float:
    return round(value, 6)
