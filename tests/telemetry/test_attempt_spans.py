"""The span of an attempt: name, parent, links, attributes, status."""

import asyncio
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from opentelemetry import baggage, trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import CollectorRegistry

from mageflow.config import Settings
from mageflow.interceptors import Enqueue, EnqueueItem, SignatureLoad, current_attempt
from mageflow.metadata import OWN_KEYS, SHARED_KEYS, stamp
from mageflow.telemetry import Telemetry
from mageflow.telemetry.names import events
from mageflow.types import DispatchRun
from tests.telemetry.conftest import STAGGERED, TASK, Bench

REMOTE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER = "00-1af7651916cd43dd8448eb211c80319c-c7ad6b7169203331-01"
KEY = "mageflow:{prod/1}:chain:f-1#2"


def trace_of(span: ReadableSpan) -> str:
    return f"{span.context.trace_id:032x}"


def test_an_attempt_hangs_under_the_span_that_sent_it(bench: Bench):
    """Producer and consumer are one trace, with the ids Hatchet uses on both ends."""
    bench.run(bench.attempt(metadata=bench.enqueue()), outcome="succeeded")

    send, process = bench.spans.one("send send"), bench.spans.one("process send")
    assert process.parent.span_id == send.context.span_id
    assert (send.kind, process.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert process.links == ()
    assert process.status.status_code is StatusCode.UNSET
    expected = {
        "messaging.system": "hatchet",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "send",
        "messaging.message.id": "run-1",
        "messaging.client.id": "worker-1",
        "hatchet.workflow_run_id": "run-1",
        "hatchet.step_run_id": "step-1",
        "hatchet.worker_id": "worker-1",
        "hatchet.payload": "",
        "code.function.name": "shop.tasks.send",
        "mageflow.enqueue.source": "direct",
        "mageflow.task.attempt": 1,
        "mageflow.task.max_attempts": 3,
        "mageflow.task.timeout_s": 30.0,
        "mageflow.task.timeout_extended_s": 0.0,
        "mageflow.task.outcome": "succeeded",
        "mageflow.task.will_retry": False,
    }
    wait = process.attributes["mageflow.queue.wait_s"]
    assert dict(process.attributes) == {**expected, "mageflow.queue.wait_s": wait}
    assert 0.0 <= wait < 5.0
    assert process.instrumentation_scope.name == "mageflow"
    assert process.instrumentation_scope.schema_url == "https://opentelemetry.io/schemas/1.44.0"


@pytest.mark.parametrize(
    ("outcome", "error", "status", "error_type"),
    [
        ("failed", ValueError("secret"), StatusCode.ERROR, "ValueError"),
        ("retried", ValueError("secret"), StatusCode.ERROR, "ValueError"),
        ("timed_out", asyncio.CancelledError(), StatusCode.ERROR, "timed_out"),
        ("cancelled", asyncio.CancelledError(), StatusCode.UNSET, None),
        ("skipped", asyncio.CancelledError(), StatusCode.UNSET, None),
    ],
)
def test_status_separates_failures_from_decisions(
    bench: Bench, outcome: str, error: BaseException, status: StatusCode, error_type: str | None
):
    """A timeout is an error although it arrives as a cancellation; a cancellation and a skip are none."""
    bench.run(bench.attempt(), error, outcome=outcome)

    span = bench.spans.one("process send")
    assert span.status.status_code is status
    assert span.attributes.get("error.type") == error_type
    assert span.attributes["mageflow.task.outcome"] == outcome
    exceptions = [dict(event.attributes) for event in span.events if event.name == "exception"]
    assert exceptions == ([{"exception.type": "ValueError"}] if isinstance(error, ValueError) else [])


@pytest.mark.parametrize(("detail", "keys"), [("message", {"message"}), ("full", {"message", "stacktrace"})])
def test_exceptions_say_more_when_asked(make_bench, detail: str, keys: set[str]):
    """Messages and tracebacks leave the process only by the setting."""
    bench = make_bench(exception_detail=detail)
    bench.run(bench.attempt(), ValueError("the words"), outcome="failed")

    event = bench.spans.one("process send").events[0]
    assert set(event.attributes) == {"exception.type", *(f"exception.{key}" for key in keys)}
    assert event.attributes["exception.message"] == "the words"
    assert bench.logs.one("mageflow.task.failed")["message"] == "the words"


def test_a_body_beside_a_load_has_a_span_of_its_own(bench: Bench):
    """Load and body are siblings under the attempt, and user code nests under the body."""
    attempt = bench.attempt(signature_id="sig-1")
    tracer = bench.spans.provider.get_tracer("user")
    with bench.interceptor.attempt(attempt):
        token = current_attempt.set(attempt)
        load = SignatureLoad("task", "sig-1")
        with bench.interceptor.load_signature(load):
            load.result, load.size_bytes = "hit", 512
        with bench.interceptor.execute(attempt):
            tracer.start_span("query").end()
        attempt.outcome = "timed_out"
        current_attempt.reset(token)

    process, loading = bench.spans.one("process send"), bench.spans.one("load signature")
    execute, query = bench.spans.one("execute send"), bench.spans.one("query")
    assert loading.parent.span_id == execute.parent.span_id == process.context.span_id
    assert query.parent.span_id == execute.context.span_id
    assert execute.status.status_code is process.status.status_code is StatusCode.ERROR
    assert process.start_time <= execute.start_time <= execute.end_time <= process.end_time
    assert execute.end_time >= query.end_time
    assert loading.attributes["mageflow.signature.result"] == "hit"
    assert loading.attributes["mageflow.signature.bytes"] == 512
    assert loading.attributes["hatchet.step_run_id"] == "step-1"
    assert process.attributes["mageflow.signature.id"] == "sig-1"


def test_load_and_body_have_the_ids_of_their_attempt_as_it_began(bench: Bench):
    """And each its own attributes. A flow that the load finds is an attribute of neither, but a field of the lines."""
    attempt = bench.attempt(signature_id="sig-1")
    with bench.interceptor.attempt(attempt):
        token = current_attempt.set(attempt)
        load = SignatureLoad("chain", "sig-1")
        with bench.interceptor.load_signature(load):
            load.result, load.size_bytes = "hit", 512
        attempt.flow_kind, attempt.flow_id, attempt.flow_name = "chain", "flow-1", "orders"
        with bench.interceptor.execute(attempt):
            bench.telemetry.recorder.log.emit(events.SIGNATURE_MISSING, signature_id="inside")
        bench.telemetry.recorder.log.emit(events.SIGNATURE_MISSING, signature_id="outside")
        attempt.outcome = "succeeded"
        current_attempt.reset(token)

    common = {
        "messaging.system": "hatchet",
        "hatchet.payload": "",
        "messaging.destination.name": attempt.task.name,
        "messaging.message.id": attempt.workflow_run_id,
        "messaging.client.id": attempt.worker_id,
        "hatchet.workflow_run_id": attempt.workflow_run_id,
        "hatchet.step_run_id": attempt.task_run_id,
        "hatchet.worker_id": attempt.worker_id,
    }
    own = {
        "mageflow.signature.id": "sig-1",
        "mageflow.signature.kind": "chain",
        "mageflow.signature.result": "hit",
        "mageflow.signature.bytes": 512,
    }
    assert dict(bench.spans.one("execute send").attributes) == common
    assert dict(bench.spans.one("load signature").attributes) == common | own
    inside, outside = bench.logs.named("mageflow.signature.missing")
    assert (inside["flow"], inside["flow_id"], inside["run_id"]) == ("orders", "flow-1", "run-1")
    assert "flow" not in outside
    assert "flow_id" not in outside
    assert outside["run_id"] == "run-1"


def test_a_plain_body_needs_no_span_of_its_own(bench: Bench):
    """User code nests under the attempt itself."""
    attempt = bench.attempt()
    with bench.interceptor.attempt(attempt), bench.interceptor.execute(attempt):
        bench.spans.provider.get_tracer("user").start_span("query").end()

    assert bench.spans.names == ["query", "process send"]
    assert bench.spans.one("query").parent.span_id == bench.spans.one("process send").context.span_id


def test_a_parent_of_unknown_origin_is_kept_and_said_to_be(bench: Bench):
    """Without our stamp the ``traceparent`` is the engine's or an ancestor's: same trace, marked external."""
    bench.run(bench.attempt(metadata={"traceparent": REMOTE}), outcome="succeeded")

    span = bench.spans.one("process send")
    assert trace_of(span) == REMOTE.split("-")[1]
    assert span.attributes["mageflow.trace.origin"] == "external"


@pytest.mark.parametrize("source", ["schedule", "cron", "event"])
def test_runs_of_a_schedule_start_their_own_trace(bench: Bench, source: str):
    """A schedule that fires for a year is no trace: a new root with a link to what scheduled it."""
    metadata = {"traceparent": REMOTE, "mageflow_enqueued_at": "1.0", "mageflow_source": source}
    bench.run(bench.attempt(metadata=metadata), outcome="succeeded")

    span = bench.spans.one("process send")
    assert span.parent is None
    assert trace_of(span) != REMOTE.split("-")[1]
    assert [f"{link.context.trace_id:032x}" for link in span.links] == [REMOTE.split("-")[1]]


def test_the_run_of_a_cron_is_a_root_and_waits_since_its_due_time(bench: Bench):
    """Hatchet writes its metadata. The ``traceparent`` in it is of a span that the engine made up."""
    due = datetime.now(UTC) - timedelta(seconds=40)
    metadata = {
        "hatchet__cron_expression": "* * * * *",
        "hatchet__cron_scheduled_at": due.isoformat().replace("+00:00", "Z"),
        "traceparent": REMOTE,
    }
    bench.run(bench.attempt(metadata=metadata), outcome="succeeded")
    bench.run(bench.attempt(metadata={**metadata, "hatchet__cron_scheduled_at": "noon"}), outcome="succeeded")

    for span in bench.spans.named("process send"):
        assert (span.parent, list(span.links)) == (None, [])
        assert span.attributes["mageflow.enqueue.source"] == "cron"
    assert bench.samples.value("mageflow_task_queue_wait_seconds_count", task="send") == 1
    assert 40 <= bench.samples.value("mageflow_task_queue_wait_seconds_sum", task="send") < 60


def test_a_run_sent_from_the_run_of_a_cron_is_none(bench: Bench):
    """It inherits the keys of Hatchet, but it was sent by a program."""
    metadata = {
        "hatchet__cron_expression": "* * * * *",
        "traceparent": REMOTE,
        "mageflow_source": "direct",
        "mageflow_enqueued_at": "1.0",
    }
    bench.run(bench.attempt(metadata=metadata), outcome="succeeded")
    span = bench.spans.one("process send")
    assert span.parent is not None
    assert span.attributes["mageflow.enqueue.source"] == "direct"


def test_which_sources_link_is_a_setting(make_bench):
    """Who wants schedules in one trace can have them."""
    bench = make_bench(trace_link_sources=())
    metadata = {"traceparent": REMOTE, "mageflow_enqueued_at": "1.0", "mageflow_source": "schedule"}
    bench.run(bench.attempt(metadata=metadata), outcome="succeeded")

    assert trace_of(bench.spans.one("process send")) == REMOTE.split("-")[1]


def test_steps_of_a_chain_are_siblings_linked_to_their_predecessor(bench: Bench):
    """Under the flow's start, not under each other; the link says what came before."""
    step = DispatchRun("send", "{}", KEY, "dedupe", source="chain", flow="chain:f-1:2", traceparent=REMOTE, link=OTHER)
    metadata = bench.enqueue(run=step)
    attempt = bench.attempt(metadata=metadata, flow_kind="chain", flow_id="f-1", flow_step=2)
    attempt.flow_name, attempt.flow_steps = "signup", 3
    bench.run(attempt, outcome="succeeded")

    send, process = bench.spans.one("send send"), bench.spans.one("process send")
    assert f"{process.parent.span_id:016x}" == f"{send.parent.span_id:016x}" == REMOTE.split("-")[2]
    assert [f"{link.context.span_id:016x}" for link in process.links] == [OTHER.split("-")[2]]
    flow = {key: value for key, value in process.attributes.items() if key.startswith("mageflow.flow.")}
    assert flow == {
        "mageflow.flow.kind": "chain",
        "mageflow.flow.id": "f-1",
        "mageflow.flow.name": "signup",
        "mageflow.flow.step": 2,
        "mageflow.flow.steps": 3,
    }
    assert process.attributes["messaging.message.conversation_id"] == "f-1"


def test_an_item_that_links_to_its_own_parent_starts_its_own_trace(bench: Bench):
    """How a swarm above the fan-out limit says that its items are too many for one trace."""
    metadata = {"traceparent": REMOTE, "mageflow_link": REMOTE, "mageflow_enqueued_at": "1.0"}
    bench.run(bench.attempt(metadata=metadata), outcome="succeeded")

    span = bench.spans.one("process send")
    assert span.parent is None
    assert [f"{link.context.span_id:016x}" for link in span.links] == [REMOTE.split("-")[2]]


def test_a_task_that_is_declared_again_has_spans_of_the_new_declaration(bench: Bench):
    """What all attempts of a task have is put together once, for one declaration and one server of Hatchet."""
    again = replace(TASK, execution_timeout_seconds=7.0, code_function_name="shop.tasks.send_again")
    bench.run(bench.attempt(), outcome="succeeded")
    bench.run(bench.attempt(again), outcome="succeeded")
    bench.telemetry.recorder.spans.server = {"server.address": "hatchet.example"}
    bench.run(bench.attempt(again), outcome="succeeded")

    first, second, third = (each.attributes for each in bench.spans.named("process send"))

    assert [each["mageflow.task.timeout_s"] for each in (first, second, third)] == [30.0, 7.0, 7.0]
    assert [each["code.function.name"] for each in (first, second)] == ["shop.tasks.send", "shop.tasks.send_again"]
    assert [each.get("server.address") for each in (second, third)] == [None, "hatchet.example"]


def test_a_retry_has_a_span_of_its_own_under_the_same_parent(bench: Bench):
    """Attempts are siblings with different numbers."""
    metadata = bench.enqueue()
    bench.run(bench.attempt(metadata=metadata), ValueError("x"), outcome="retried", will_retry=True)
    bench.run(bench.attempt(metadata=metadata, attempt_number=2), outcome="succeeded")

    first, second = bench.spans.named("process send")
    assert first.parent.span_id == second.parent.span_id
    assert [span.attributes["mageflow.task.attempt"] for span in (first, second)] == [1, 2]
    assert first.attributes["mageflow.task.will_retry"] is True


@pytest.mark.parametrize("junk", ["", "x", "00-0-0-00", 7, None, "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
def test_metadata_that_makes_no_sense_is_ignored(bench: Bench, junk: object):
    """Any program can write metadata: the attempt gets a trace of its own."""
    metadata: dict[str, object] = dict.fromkeys((*OWN_KEYS, *SHARED_KEYS), junk)
    bench.run(bench.attempt(metadata=metadata), outcome="succeeded")

    span = bench.spans.one("process send")
    assert span.parent is None
    assert span.links == ()
    assert bench.samples.total("mageflow_telemetry_errors_total") == 0.0


def test_baggage_travels_only_when_asked(make_bench):
    """Off by default: baggage is data of the user's users."""
    from opentelemetry import context as otel_context

    seen: list[object] = []
    for setting in (False, True):
        bench = make_bench(propagate_baggage=setting)
        token = otel_context.attach(baggage.set_baggage("tenant", "acme"))
        metadata = bench.enqueue()
        otel_context.detach(token)
        attempt = bench.attempt(metadata=metadata)
        with bench.interceptor.attempt(attempt):
            seen.append(baggage.get_baggage("tenant"))
    assert seen == [None, "acme"]


def test_the_context_is_left_as_it_was_found(bench: Bench):
    """No span stays current after an attempt, however it ends."""
    bench.run(bench.attempt(), ValueError("x"), outcome="failed")
    bench.run(bench.attempt(STAGGERED), asyncio.CancelledError(), outcome="cancelled")

    assert trace.get_current_span() is trace.INVALID_SPAN


def test_a_trace_goes_through_a_worker_that_records_no_spans(make_bench, monkeypatch: pytest.MonkeyPatch):
    """The attempt's own span is neither made nor described: the sender's is the parent of what the task sends."""
    bench = make_bench()
    metadata = bench.enqueue()
    silent = Telemetry(Settings(), registry=CollectorRegistry(), tracer_provider=trace.NoOpTracerProvider())
    described: list[object] = []
    monkeypatch.setattr(
        "mageflow.telemetry.process_span.ProcessSpans.attributes", lambda *facts, **_: described.append(facts) or {}
    )
    attempt = bench.attempt(metadata=metadata)
    with silent.interceptor.attempt(attempt), silent.interceptor.execute(attempt):
        sent = EnqueueItem("send", stamp({}, source="direct"))
        with silent.interceptor.enqueue(Enqueue("run", [sent])):
            pass
        attempt.outcome = "succeeded"

    sender = bench.spans.one("send send").context
    assert attempt.traceparent == metadata["traceparent"] == sent.metadata["traceparent"]
    exemplars = [each.exemplar for family in silent.recorder.registry.collect() for each in family.samples]
    assert {each.labels["trace_id"] for each in exemplars if each is not None} == {f"{sender.trace_id:032x}"}
    assert bench.logs.named("mageflow.task.finished")[-1]["span_id"] == f"{sender.span_id:016x}"
    assert described == []
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_a_provider_that_the_program_sets_late_gets_spans():
    """A client is made when its module is imported, often before the program sets its provider: in a process, once."""
    program = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from mageflow.telemetry.spans import Spans

spans = Spans(None)
print(spans.may_record)
trace.set_tracer_provider(TracerProvider())
print(spans.may_record)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_a_batch_says_how_many_items_it_has(bench: Bench):
    """One span for the batch: Hatchet gives the SDK no metadata per item."""
    from dataclasses import replace

    from tests.telemetry.conftest import TASK

    bench.run(bench.attempt(replace(TASK, is_batch=True), batch_size=7), outcome="succeeded")

    assert bench.spans.one("process send").attributes["messaging.batch.message_count"] == 7


class SilentError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (SilentError(), "<no text: str() raised RuntimeError>"),
        (ValueError("\ud800"), "\\ud800"),
        (ValueError("x" * 5_000_000), "4991808 characters left out"),
    ],
)
@pytest.mark.parametrize("detail", ["message", "full"])
def test_an_exception_with_any_text_is_recorded(make_bench, error: Exception, says: str, detail: str):
    """A ``__str__`` that fails, what is no UTF-8, and megabytes: the span, its event and the record say so."""
    bench = make_bench(exception_detail=detail)
    bench.run(bench.attempt(), error, outcome="failed")

    span = bench.spans.one("process send")
    assert span.status.status_code is StatusCode.ERROR
    (event,) = span.events
    recorded = bench.logs.one("mageflow.task.failed")["message"]
    assert says in recorded
    assert event.attributes["exception.message"] == recorded
    assert len(str(dict(event.attributes))) < 50_000
    assert bench.samples.total("mageflow_telemetry_errors_total") == 0.0
