"""Chains, swarms and callbacks: one flat trace per flow, and its metrics.

The context of the start span is stored with the flow and becomes the parent of every run of it. So a chain is one trace
of siblings, in whichever process they run. When the flow ends, a span for all of it is written under the start span,
back-dated to its start by the clock of Redis.
"""

from types import TracebackType
from typing import Final

from opentelemetry.trace import Span

from mageflow.interceptors import CallbackSend, FlowFinish, FlowStart, FlowStep, RunResend, SwarmFill, SwarmLeftOpen
from mageflow.telemetry.names import events, metrics, traces
from mageflow.telemetry.propagation import context_of, span_context_of, traceparent_of
from mageflow.telemetry.recorder import Recorder
from mageflow.telemetry.span_scope import SpanScope
from mageflow.telemetry.spans import Attributes

__all__ = ["FillScope", "StartFlowScope", "finish_flow", "resend_run", "send_callback", "step_flow", "warn_left_open"]

_NANOSECONDS: Final = 1_000_000_000


class StartFlowScope(SpanScope[FlowStart]):
    """Around the script that starts a flow."""

    __slots__ = ()

    def __enter__(self) -> None:
        recorder, call, guards = self._recorder, self._call, self._recorder.guards
        if guards.trace.may_record:
            with guards.trace.catching("start_flow.enter"):
                span = recorder.spans.start(
                    traces.SPAN_START_FLOW,
                    call.name or call.kind,
                    {
                        traces.MESSAGING_OPERATION_NAME: "start",
                        traces.MESSAGING_OPERATION_TYPE: "create",
                        traces.MESSAGING_CONVERSATION_ID: call.flow_id,
                        traces.FLOW_KIND: call.kind,
                        traces.FLOW_ID: call.flow_id,
                    },
                )
                self._open(span)
                call.traceparent = traceparent_of(span.get_span_context()) or call.traceparent

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        recorder, call, guards = self._recorder, self._call, self._recorder.guards
        if call.started:
            if guards.metric.may_record:
                with guards.metric.catching("start_flow.exit"):
                    recorder.instruments.zero_flow(call.kind, call.name)
                    recorder.instruments.inc(metrics.FLOWS_STARTED, call.kind, call.name)
                    recorder.instruments.observe(metrics.FLOW_STEPS, call.steps, call.kind)
            recorder.log.emit(
                events.FLOW_STARTED, name=call.name, steps=call.steps, flow=call.name, flow_id=call.flow_id
            )
        with guards.trace.catching("start_flow.exit"):
            if self._span is not None:
                if call.name:
                    self._span.update_name(traces.SPAN_START_FLOW(call.name))
                    self._span.set_attribute(traces.FLOW_NAME, call.name)
                self._span.set_attribute(traces.FLOW_STEP_COUNT, call.steps)
                if error is not None:
                    recorder.spans.fail(self._span, error)
                self._span.end()
        self._leave("start_flow.exit")


class FillScope:
    """Around handing items of a swarm to Hatchet."""

    __slots__ = ("_call", "_recorder", "_span")

    def __init__(self, recorder: Recorder, call: SwarmFill) -> None:
        self._recorder = recorder
        self._call = call
        self._span: Span | None = None

    def __enter__(self) -> None:
        recorder, call, guards = self._recorder, self._call, self._recorder.guards
        if guards.trace.may_record:
            with guards.trace.catching("fill_swarm.enter"):
                self._span = recorder.spans.start(
                    traces.SPAN_FILL_SWARM,
                    call.name,
                    {
                        traces.MESSAGING_CONVERSATION_ID: call.flow_id,
                        traces.MESSAGING_BATCH_COUNT: call.count,
                        traces.FLOW_KIND: "swarm",
                        traces.FLOW_ID: call.flow_id,
                        traces.FLOW_NAME: call.name,
                        traces.SWARM_RUNNING: call.running,
                        traces.SWARM_PENDING: call.pending,
                    },
                    context=context_of(call.traceparent) if call.traceparent else None,
                )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._recorder.guards.trace.catching("fill_swarm.exit"):
            if self._span is not None:
                if error is not None:
                    self._recorder.spans.fail(self._span, error)
                self._span.end()


def step_flow(recorder: Recorder, call: FlowStep) -> None:
    """Record that a step or item was admitted."""
    if recorder.guards.metric.may_record:
        with recorder.guards.metric.catching("step_flow"):
            # This process may be the one that ends the flow.
            recorder.instruments.zero_flow(call.kind, call.name)
            if call.handover_seconds is not None:
                recorder.instruments.observe(metrics.FLOW_HANDOVER, max(call.handover_seconds, 0.0), call.kind)
    recorder.log.emit(
        events.FLOW_STEP_DONE, step=call.step, handover_s=call.handover_seconds, flow=call.name, flow_id=call.flow_id
    )


def finish_flow(recorder: Recorder, call: FlowFinish) -> None:
    """Record the end of a flow. Only one process gets the event."""
    guards = recorder.guards
    duration = max(call.ended_at - call.started_at, 0.0)
    exemplar: dict[str, str] | None = None
    if guards.trace.may_record:
        with guards.trace.catching("finish_flow"):
            start = span_context_of(call.traceparent)
            attributes: Attributes = {
                traces.MESSAGING_CONVERSATION_ID: call.flow_id,
                traces.FLOW_KIND: call.kind,
                traces.FLOW_ID: call.flow_id,
                traces.FLOW_NAME: call.name,
                traces.FLOW_OUTCOME: call.outcome,
                traces.FLOW_STEP_COUNT: call.steps,
            }
            if call.critical_task:
                attributes[traces.FLOW_CRITICAL_TASK] = call.critical_task
            span = recorder.spans.start(
                traces.SPAN_FLOW,
                call.name,
                attributes,
                context=context_of(call.traceparent) if start is not None else None,
                start_time=int(call.started_at * _NANOSECONDS),
            )
            if call.outcome == "failed":
                recorder.spans.fail(span, None, "failed")
            span.end(int(call.ended_at * _NANOSECONDS))
            own = span.get_span_context()
            if own.trace_flags.sampled:
                exemplar = {"trace_id": f"{own.trace_id:032x}", "span_id": f"{own.span_id:016x}"}
    if guards.metric.may_record:
        with guards.metric.catching("finish_flow"):
            recorder.instruments.inc(metrics.FLOWS_FINISHED, call.kind, call.name, call.outcome)
            recorder.instruments.observe(metrics.FLOW_DURATION, duration, call.kind, call.name, exemplar=exemplar)
    recorder.log.emit(
        events.FLOW_FINISHED,
        outcome=call.outcome,
        duration_s=round(duration, 6),
        steps=call.steps,
        flow=call.name,
        flow_id=call.flow_id,
    )


def send_callback(recorder: Recorder, call: CallbackSend) -> None:
    """Record that a callback was sent, or could not be."""
    if recorder.guards.metric.may_record:
        with recorder.guards.metric.catching("send_callback"):
            recorder.instruments.inc(metrics.CALLBACKS, call.kind, call.result)
    if call.result == "failed":
        recorder.log.emit(
            events.CALLBACK_FAILED,
            kind=call.kind,
            target=call.target,
            error_type=call.error_type,
            signature_id=call.signature_id,
        )


def resend_run(recorder: Recorder, call: RunResend) -> None:
    """Record that a run is sent again, because the one before is gone."""
    if recorder.guards.metric.may_record:
        with recorder.guards.metric.catching("resend_run"):
            recorder.instruments.inc(metrics.FLOW_RESENDS, call.reason)
    recorder.log.emit(
        events.FLOW_RUN_RESENT,
        reason=call.reason,
        target=call.target,
        lost_run_id=call.run_id,
        times=call.times,
        signature_id=call.signature_id,
    )


def warn_left_open(recorder: Recorder, event: SwarmLeftOpen) -> None:
    """Write the log event of a swarm that its caller awaits and that will not end."""
    recorder.log.emit(
        events.SWARM_LEFT_OPEN, target=event.name, swarm_id=event.flow_id, items=event.items, advice=event.advice
    )
