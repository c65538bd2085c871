"""Staggers, timeout extensions, signature loads and writes, and round trips to Redis."""

import asyncio
import time
from types import TracebackType
from typing import Final, Literal

from opentelemetry import trace
from opentelemetry.trace import Span

from mageflow.errors import StoreUnavailableError
from mageflow.interceptors import (
    DamageFound,
    RedisCall,
    SignatureLoad,
    SignatureWrite,
    Stagger,
    TimeoutExtension,
    current_attempt,
)
from mageflow.telemetry.names import events, metrics, traces
from mageflow.telemetry.recent import StaggerNow
from mageflow.telemetry.recorder import Recorder
from mageflow.telemetry.span_scope import SpanScope
from mageflow.telemetry.spans import Attributes

__all__ = ["ExtensionScope", "LoadScope", "RedisScope", "StaggerScope", "WriteScope", "damage_found"]

_LOAD_SIGNATURE: Final = traces.SPAN_LOAD_SIGNATURE()


class StaggerScope(SpanScope[Stagger]):
    """Around the extension and the sleep of a staggered attempt."""

    __slots__ = ()

    def __enter__(self) -> None:
        recorder, call, guards = self._recorder, self._call, self._recorder.guards
        live = recorder.live.find(call.attempt)
        if live is not None:
            live.stagger = StaggerNow(call, call.attempt.monotonic())
        if guards.trace.may_record:
            with guards.trace.catching("stagger.enter"):
                attributes: Attributes = {} if live is None else dict(live.ids)
                attributes[traces.STAGGER_DELAY_S] = call.delay_seconds
                attributes[traces.STAGGER_WINDOW_S] = call.window_seconds
                self._open(recorder.spans.start(traces.SPAN_STAGGER, call.attempt.task.name, attributes))
                if live is not None:
                    live.has_stages = True
        recorder.log.emit(
            events.STAGGER_STARTED, delay_s=round(call.delay_seconds, 6), window_s=round(call.window_seconds, 6)
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        recorder, call, guards = self._recorder, self._call, self._recorder.guards
        outcome: Literal["completed", "cancelled", "extension_failed"] = "completed"
        if error is not None:
            outcome = "cancelled"
        elif call.extension_failed:
            outcome = "extension_failed"
        if guards.metric.may_record:
            with guards.metric.catching("stagger.exit"):
                task = call.attempt.task.name
                live = recorder.live.find(call.attempt)
                recorder.instruments.inc(metrics.STAGGERS, task, outcome)
                recorder.instruments.observe(
                    metrics.STAGGER_DELAY, call.delay_seconds, task, exemplar=live.exemplar if live else None
                )
        if outcome == "cancelled":
            recorder.log.emit(events.STAGGER_CANCELLED, slept_s=round(call.slept_seconds, 6))
        with guards.trace.catching("stagger.exit"):
            if self._span is not None:
                self._span.set_attribute(traces.STAGGER_SLEPT_S, call.slept_seconds)
                if call.extension_failed:
                    recorder.spans.fail(self._span, None, "extension_failed")
                self._span.end()
        self._leave("stagger.exit")


class ExtensionScope:
    """Around one request for more execution time."""

    __slots__ = ("_call", "_recorder", "_started")

    def __init__(self, recorder: Recorder, call: TimeoutExtension) -> None:
        self._recorder = recorder
        self._call = call
        self._started = 0.0

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        recorder, call, guards = self._recorder, self._call, self._recorder.guards
        is_granted = error is None and call.granted_seconds > 0
        result = "ok" if is_granted else "error"
        took = time.perf_counter() - self._started
        if guards.metric.may_record:
            with guards.metric.catching("extension.exit"):
                task = call.attempt.task.name
                recorder.instruments.inc(metrics.TIMEOUT_EXTENSIONS, task, call.reason, result)
                recorder.instruments.observe(metrics.TIMEOUT_EXTENSION_REQUEST, took, result)
                if is_granted:
                    recorder.instruments.observe(metrics.TIMEOUT_EXTENSION, call.granted_seconds, task, call.reason)
        if guards.trace.may_record:
            with guards.trace.catching("extension.exit"):
                attributes: Attributes = {
                    traces.TIMEOUT_REASON: call.reason,
                    traces.TIMEOUT_REQUESTED_S: call.requested_seconds,
                    traces.TIMEOUT_RESULT: result,
                }
                if call.deadline is not None:
                    attributes[traces.TIMEOUT_DEADLINE] = call.deadline
                self._span().add_event(traces.EVENT_TIMEOUT_EXTENDED, attributes)
        if is_granted:
            recorder.log.emit(
                events.TIMEOUT_EXTENDED,
                reason=call.reason,
                by_s=round(call.granted_seconds, 6),
                deadline=call.deadline,
            )
        else:
            recorder.log.emit(
                events.TIMEOUT_EXTENSION_FAILED,
                reason=call.reason,
                by_s=round(call.requested_seconds, 6),
                error_type="refused" if error is None else type(error).__name__,
            )

    def _span(self) -> Span:
        """The stage that needs the time; the attempt, if that stage has ended before Hatchet answered."""
        current = trace.get_current_span()
        if current.is_recording():
            return current
        live = self._recorder.live.find(self._call.attempt)
        return trace.INVALID_SPAN if live is None else live.span


class LoadScope(SpanScope[SignatureLoad]):
    """Around the load of a signature, inside an attempt or outside of one."""

    __slots__ = ("_started",)

    def __enter__(self) -> None:
        recorder, call, guards = self._recorder, self._call, self._recorder.guards
        self._started = time.perf_counter()
        if guards.trace.may_record:
            with guards.trace.catching("load.enter"):
                live = recorder.live.find(current_attempt.get())
                attributes: Attributes = {
                    **(recorder.spans.with_common({}) if live is None else live.stage_attributes(recorder.spans)),
                    traces.SIGNATURE_ID: call.signature_id,
                    traces.SIGNATURE_KIND: call.kind,
                }
                self._open(recorder.spans.start_stage(_LOAD_SIGNATURE, attributes))
                if live is not None:
                    live.has_stages = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        recorder, call, guards = self._recorder, self._call, self._recorder.guards
        took = time.perf_counter() - self._started
        if guards.metric.may_record:
            with guards.metric.catching("load.exit"):
                recorder.instruments.inc(metrics.SIGNATURE_LOADS, call.kind, call.result)
                recorder.instruments.observe(metrics.SIGNATURE_LOAD_DURATION, took, call.kind)
        if call.result == "missing":
            recorder.log.emit(events.SIGNATURE_MISSING, kind=call.kind, signature_id=call.signature_id)
        elif call.result == "foreign":
            recorder.log.emit(events.SIGNATURE_FOREIGN, kind=call.kind, signature_id=call.signature_id)
        elif call.result == "invalid":
            recorder.log.emit(
                events.SIGNATURE_INVALID,
                kind=call.kind,
                signature_id=call.signature_id,
                error_type="" if error is None else type(error).__name__,
            )
        with guards.trace.catching("load.exit"):
            if self._span is not None:
                self._span.set_attributes(
                    {traces.SIGNATURE_RESULT: call.result, traces.SIGNATURE_BYTES: call.size_bytes}
                )
                if call.result in ("invalid", "error"):
                    recorder.spans.fail(self._span, error, "" if error is not None else call.result)
                self._span.end()
        self._leave("load.exit")


class WriteScope:
    """Around the write of a signature."""

    __slots__ = ("_call", "_recorder")

    def __init__(self, recorder: Recorder, call: SignatureWrite) -> None:
        self._recorder = recorder
        self._call = call

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        recorder, call, guards = self._recorder, self._call, self._recorder.guards
        if guards.metric.may_record:
            with guards.metric.catching("write.exit"):
                result = "error" if error is not None else "missing" if call.is_dropped else "ok"
                recorder.instruments.inc(metrics.SIGNATURE_WRITES, call.kind, call.operation, result)
                if call.size_bytes:
                    recorder.instruments.observe(metrics.SIGNATURE_SIZE, call.size_bytes, call.kind)
        if call.is_dropped:
            recorder.log.emit(events.SIGNATURE_END_DROPPED, kind=call.kind, signature_id=call.signature_id)


class RedisScope:
    """Around one round trip to Redis. Records only failures."""

    __slots__ = ("_call", "_recorder")

    def __init__(self, recorder: Recorder, call: RedisCall) -> None:
        self._recorder = recorder
        self._call = call

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, asyncio.CancelledError) or not isinstance(error, Exception):
            return
        recorder, operation, guards = self._recorder, self._call.operation, self._recorder.guards
        # The store raises its own error from that of redis-py; the latter says what happened.
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        error_type = type(cause).__name__
        if guards.metric.may_record:
            with guards.metric.catching("redis.exit"):
                recorder.instruments.inc(metrics.REDIS_ERRORS, operation, error_type)
        level = "debug" if isinstance(error, StoreUnavailableError) else ""
        recorder.log.emit(events.REDIS_ERROR, level, operation=operation, error_type=error_type)


def damage_found(recorder: Recorder, call: DamageFound) -> None:
    """Record that something in Redis cannot be read and was put aside."""
    if recorder.guards.metric.may_record:
        with recorder.guards.metric.catching("damage_found"):
            recorder.instruments.inc(metrics.STORE_DAMAGED, call.kind)
    recorder.log.emit(events.STORE_DAMAGED, kind=call.kind, key=call.key, reason=call.reason)
