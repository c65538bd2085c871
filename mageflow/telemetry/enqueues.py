"""One call that hands runs to Hatchet: its spans, its metrics, and the trace context in the runs' metadata.

If the SDK's instrumentor is active, it makes the producer's span and writes ``traceparent``. Then only the current
context around the call is set here, and the trace context of runs spawned by durable tasks, for which the instrumentor
writes none.
"""

import time
from collections import Counter
from contextvars import Token
from types import TracebackType

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span

from mageflow.interceptors import Enqueue, EnqueueItem, RunUnserved
from mageflow.metadata import KEY_LINK, KEY_QUEUE_SOURCE, KEY_TRACEPARENT
from mageflow.telemetry import instrumentor
from mageflow.telemetry.names import events, metrics, traces
from mageflow.telemetry.propagation import context_of, inject
from mageflow.telemetry.recorder import Recorder
from mageflow.telemetry.spans import Attributes

__all__ = ["EnqueueScope", "warn_unserved"]


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
        if self._recorder.settings.hatchet_queue_by_source:
            for item in call.items:
                item.metadata[KEY_QUEUE_SOURCE] = call.source
        if guards.trace.may_record:
            with guards.trace.catching("enqueue.enter"):
                self._start_spans()

    # -- traces --------------------------------------------------------------------------------------------------

    def _start_spans(self) -> None:
        call, settings = self._call, self._recorder.settings
        only = call.items[0] if len(call.items) == 1 else None
        parent = only.traceparent if only else ""
        context = trace.set_span_in_context(
            trace.get_current_span(context_of(parent)), otel_context.get_current()
        ) if parent else otel_context.get_current()  # fmt: skip
        if instrumentor.wraps_producer():
            if parent:
                self._token = otel_context.attach(context)
            if call.is_durable_spawn:
                for item in call.items:
                    self._inject(item, context)
            return
        subject = self._subject()
        attributes = self._attributes(subject)
        # The conventions: producer is the kind of the span that is the parent of the runs.
        has_creates = only is None and len(call.items) <= settings.trace_fanout_limit
        name = traces.SPAN_SEND_ALL if has_creates else traces.SPAN_SEND
        self._span = self._recorder.spans.start(name, subject, attributes, context=context)
        context = trace.set_span_in_context(self._span, context)
        self._token = otel_context.attach(context)
        if only is not None:
            self._inject(only, context)
        elif has_creates:
            for item in call.items:
                create = self._recorder.spans.start(
                    traces.SPAN_CREATE, self._name(item.task), self._item_attributes(item), context=context
                )
                self._creates.append(create)
                self._inject(item, trace.set_span_in_context(create, context))
        else:
            for item in call.items:
                self._inject(item, context)
                if not item.metadata.get(KEY_LINK):
                    item.metadata[KEY_LINK] = str(item.metadata.get(KEY_TRACEPARENT) or "")

    def _inject(self, item: EnqueueItem, context: Context) -> None:
        """Write the run's parent into its metadata: the start of its flow, or the span that sends it."""
        inject(item.metadata, context, has_baggage=self._recorder.settings.propagate_baggage)
        if item.traceparent:
            item.metadata[KEY_TRACEPARENT] = item.traceparent

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
        elif call.items[0].signature_id:
            attributes[traces.SIGNATURE_ID] = call.items[0].signature_id
        return attributes

    def _item_attributes(self, item: EnqueueItem) -> Attributes:
        attributes: Attributes = {
            traces.MESSAGING_OPERATION_NAME: "create",
            traces.MESSAGING_OPERATION_TYPE: "create",
            traces.MESSAGING_DESTINATION_NAME: self._name(item.task),
            traces.ENQUEUE_SOURCE: self._call.source,
        }
        if item.signature_id:
            attributes[traces.SIGNATURE_ID] = item.signature_id
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
                    self._log(error)
            if guards.trace.may_record:
                with guards.trace.catching("enqueue.exit"):
                    self._complete_spans(error)
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

    def _log(self, error: BaseException | None) -> None:
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

    def _complete_spans(self, error: BaseException | None) -> None:
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


def warn_unserved(recorder: Recorder, event: RunUnserved) -> None:
    """Count and log a task whose run does not start."""
    if recorder.guards.metric.may_record:
        with recorder.guards.metric.catching("unserved"):
            recorder.instruments.inc(metrics.TASKS_UNSERVED, recorder.task_label(event.task), event.reason)
    recorder.log.emit(
        events.TASK_UNSERVED,
        target=event.task,
        reason=event.reason,
        advice=event.advice,
        waiting_run_id=event.run_id,
    )
