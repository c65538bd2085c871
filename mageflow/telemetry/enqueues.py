"""One call that hands runs to Hatchet, observed: stamps, trace context, span, metrics.

Beside the SDK's instrumentor no span of ours is made and its key is left to it; only which context is current around
the call is chosen here, and the children of durable tasks, where it injects nothing, get their trace context from us.
"""

import time
from collections import Counter
from contextvars import Token
from types import TracebackType

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span

from mageflow.interceptors import Enqueue, EnqueueItem
from mageflow.telemetry import instrumentor
from mageflow.telemetry.names import events, metrics, traces
from mageflow.telemetry.propagation import context_of, inject, stamp
from mageflow.telemetry.recorder import Recorder
from mageflow.telemetry.spans import Attributes

__all__ = ["EnqueueScope"]


class EnqueueScope:
    """Around one enqueue. Reads `Enqueue` on entry and run ids on exit."""

    __slots__ = ("_call", "_creates", "_recorder", "_span", "_started", "_token")

    def __init__(self, recorder: Recorder, call: Enqueue) -> None:
        self._recorder = recorder
        self._call = call
        self._span: Span | None = None
        self._creates: list[Span] = []
        self._token: Token[Context] | None = None
        self._started = 0.0

    def __enter__(self) -> None:
        guards, call = self._recorder.guards, self._call
        self._started = time.perf_counter()
        if guards.context.may_record:
            with guards.context.catching("enqueue.stamp"):
                now = time.time()
                for item in call.items:
                    stamp(item, call, now=now, has_queue_source=self._recorder.settings.hatchet_queue_by_source)
        if guards.trace.may_record:
            with guards.trace.catching("enqueue.enter"):
                self._open()

    # -- traces --------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        call, settings = self._call, self._recorder.settings
        only = call.items[0] if len(call.items) == 1 else None
        under = call.traceparent or (only.traceparent if only else "")
        context = trace.set_span_in_context(
            trace.get_current_span(context_of(under)), otel_context.get_current()
        ) if under else otel_context.get_current()  # fmt: skip
        if instrumentor.wraps_producer():
            if under:
                self._token = otel_context.attach(context)
            if call.is_durable_spawn:
                for item in call.items:
                    self._carry(item, context)
            return
        subject = self._subject()
        attributes = self._attributes(subject)
        self._span = self._recorder.spans.start(traces.SPAN_SEND, subject, attributes, context=context)
        context = trace.set_span_in_context(self._span, context)
        self._token = otel_context.attach(context)
        if only is not None:
            self._carry(only, context)
        elif len(call.items) <= settings.trace_fanout_limit:
            for item in call.items:
                create = self._recorder.spans.start(
                    traces.SPAN_CREATE, self._name(item.task), self._item_attributes(item), context=context
                )
                self._creates.append(create)
                self._carry(item, trace.set_span_in_context(create, context))
        else:
            for item in call.items:
                self._carry(item, context)
                if not item.metadata.get(traces.KEY_LINK) and call.source != "cron":
                    item.metadata[traces.KEY_LINK] = str(item.metadata.get(traces.KEY_TRACEPARENT) or "")

    def _carry(self, item: EnqueueItem, context: Context) -> None:
        """Write the context a run belongs under: its flow's start where it has one, else the span that sends it."""
        if self._call.source == "cron":
            return
        inject(item.metadata, context, has_baggage=self._recorder.settings.propagate_baggage)
        if under := item.traceparent or self._call.traceparent:
            item.metadata[traces.KEY_TRACEPARENT] = under

    def _name(self, task: str) -> str:
        return "event" if self._call.operation == "push_event" else self._recorder.task_label(task)

    def _subject(self) -> str:
        names = {self._name(item.task) for item in self._call.items}
        return names.pop() if len(names) == 1 else "batch"

    def _attributes(self, subject: str) -> Attributes:
        call = self._call
        attributes: Attributes = {
            traces.MESSAGING_OPERATION_NAME: call.operation,
            traces.MESSAGING_OPERATION_TYPE: "send",
            traces.MESSAGING_DESTINATION_NAME: subject,
            traces.ENQUEUE_SOURCE: call.source,
        }
        if len(call.items) != 1:
            attributes[traces.MESSAGING_BATCH_COUNT] = len(call.items)
        elif signature := str(call.items[0].metadata.get(traces.KEY_SIGNATURE) or ""):
            attributes[traces.SIGNATURE_ID] = signature
        return attributes

    def _item_attributes(self, item: EnqueueItem) -> Attributes:
        attributes: Attributes = {
            traces.MESSAGING_OPERATION_NAME: "create",
            traces.MESSAGING_OPERATION_TYPE: "create",
            traces.MESSAGING_DESTINATION_NAME: self._name(item.task),
            traces.ENQUEUE_SOURCE: self._call.source,
        }
        if signature := str(item.metadata.get(traces.KEY_SIGNATURE) or ""):
            attributes[traces.SIGNATURE_ID] = signature
        return attributes

    # -- exit ----------------------------------------------------------------------------------------------------

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        guards = self._recorder.guards
        try:
            if guards.metric.may_record:
                with guards.metric.catching("enqueue.exit"):
                    self._measure(error)
            if guards.log.may_record:
                with guards.log.catching("enqueue.exit"):
                    self._tell(error)
            if guards.trace.may_record:
                with guards.trace.catching("enqueue.exit"):
                    self._conclude(error)
        finally:
            with guards.trace.catching("enqueue.close"):
                for span in (*self._creates, *(() if self._span is None else (self._span,))):
                    span.end()
            with guards.context.catching("enqueue.close"):
                if self._token is not None:
                    otel_context.detach(self._token)

    def _measure(self, error: BaseException | None) -> None:
        instruments, call = self._recorder.instruments, self._call
        result = "ok" if error is None else "error"
        self._recorder.zero_enqueues()
        for task, count in Counter(self._label(item.task) for item in call.items).items():
            instruments.inc(metrics.TASKS_ENQUEUED, task, call.source, result, by=count)
        instruments.observe(metrics.TASK_ENQUEUE_DURATION, time.perf_counter() - self._started, call.operation)

    def _label(self, task: str) -> str:
        return metrics.EVENT_TASK if self._call.operation == "push_event" else self._recorder.task_label(task)

    def _tell(self, error: BaseException | None) -> None:
        call, log = self._call, self._recorder.log
        if error is None:
            log.emit(events.TASK_ENQUEUED, target=self._subject(), source=call.source, batch=len(call.items))
        else:
            log.emit(
                events.TASK_ENQUEUE_FAILED,
                target=self._subject(),
                source=call.source,
                batch=len(call.items),
                error_type=type(error).__name__,
            )

    def _conclude(self, error: BaseException | None) -> None:
        if self._span is None:
            return
        if error is not None:
            for span in (*self._creates, self._span):
                self._recorder.spans.fail(span, error)
        if len(self._call.items) == 1 and (run_id := self._call.items[0].run_id):
            self._span.set_attributes({traces.MESSAGING_MESSAGE_ID: run_id, traces.HATCHET_WORKFLOW_RUN_ID: run_id})
        for create, item in zip(self._creates, self._call.items, strict=False):
            if item.run_id:
                create.set_attribute(traces.MESSAGING_MESSAGE_ID, item.run_id)
