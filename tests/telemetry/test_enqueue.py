"""What handing runs to Hatchet writes, counts and traces."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime

import pytest
from opentelemetry.trace import SpanKind, StatusCode

from mageflow.hatchet.enqueue import Enqueuer, enqueue_item, on_behalf_of
from mageflow.interceptors import ClientCreated, Enqueue, EnqueueItem, Interceptor, RunUnserved, current_attempt
from mageflow.metadata import OWN_KEYS, blank, stamp
from mageflow.types import DispatchRun
from tests.telemetry.conftest import Bench

FLOW = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
FLOW_ID, SIGNATURE_ID = "0c3a", "4f1c"
FLOW_KEY, SIGNATURE_KEY = f"mageflow:{{prod/a}}:swarm:{FLOW_ID}", f"mageflow:{{prod/c}}:task:{SIGNATURE_ID}"


def item_of_swarm(number: int) -> DispatchRun:
    return DispatchRun(
        "send",
        "{}",
        f"{FLOW_KEY}#{number}",
        f"{FLOW_KEY}#{number}/0",
        source="swarm",
        flow=f"swarm:{FLOW_ID}:{number}",
        traceparent=FLOW,
        link=FLOW,
    )


def enqueue(bench: Bench, count: int, task: str = "send", **facts) -> list[EnqueueItem]:
    stamped = stamp({"user": "kept"}, source=facts.get("source", "direct"))
    items = [EnqueueItem(task, dict(stamped)) for _ in range(count)]
    with bench.interceptor.enqueue(Enqueue(facts.pop("operation", "run_many"), items, **facts)):
        for number, item in enumerate(items):
            item.run_id = f"run-{number}"
    return items


def test_every_key_is_written_even_when_unused(bench: Bench):
    """The SDK merges a parent's metadata into its children: an unwritten key would be inherited."""
    metadata = bench.enqueue(run=item_of_swarm(1))

    assert set(OWN_KEYS) <= set(metadata)
    assert metadata["mageflow_signature"] == f"{FLOW_KEY}#1"
    assert metadata["mageflow_dedupe"] == f"{FLOW_KEY}#1/0"
    assert metadata["mageflow_flow"] == f"swarm:{FLOW_ID}:1"
    assert metadata["mageflow_link"] == FLOW
    assert metadata["mageflow_source"] == "swarm"
    due_at = datetime.fromtimestamp(12.5, UTC)
    scheduled = bench.enqueue(operation="schedule", source="schedule", due_at=due_at)
    assert scheduled["mageflow_due_at"] == "12.500000"
    plain = bench.enqueue()
    unused = ("mageflow_due_at", "mageflow_flow", "mageflow_link", "mageflow_signature", "mageflow_dedupe")
    assert [plain[key] for key in unused] == [""] * 5
    assert float(str(plain["mageflow_enqueued_at"])) == pytest.approx(time.time(), abs=10)
    assert all(isinstance(value, str) for value in plain.values())
    assert not any(key.startswith("hatchet__") for key in plain)


def test_the_keys_do_not_need_telemetry(bench: Bench):
    """They are state: a client whose interceptors write nothing sends them too."""
    with on_behalf_of(item_of_swarm(1)), Enqueuer(Interceptor()).single("send", {"user": "kept"}) as item:
        pass

    traced = bench.enqueue(run=item_of_swarm(1))
    own = {key: value for key, value in item.metadata.items() if key != "mageflow_enqueued_at"}
    assert own == {"user": "kept", **{key: traced[key] for key in OWN_KEYS if key != "mageflow_enqueued_at"}}


def test_a_cron_has_a_source_and_nothing_of_its_moment():
    """Its metadata is copied to every run it will ever start: they would all be one trace, with one queue wait."""
    blanked = blank({"user": "kept", "mageflow_link": FLOW, "mageflow_enqueued_at": "1.0"})

    assert blanked == {"user": "kept", **dict.fromkeys(OWN_KEYS, "")}


def test_hatchet_gets_the_source_on_demand(make_bench: Callable[..., Bench]):
    """Hatchet makes a series of every value of a key that begins with ``prom_``, so it is off unless switched on."""
    bench = make_bench(hatchet_queue_by_source=True)

    assert bench.enqueue(run=item_of_swarm(0))["prom_mageflow_source"] == "swarm"
    assert "prom_mageflow_source" not in make_bench().enqueue(run=item_of_swarm(0))


def test_runs_of_a_flow_have_its_start_as_parent(bench: Bench):
    """One bulk call of a flow sends many members, each with a signature, a place and a link of its own."""
    items = [enqueue_item(item_of_swarm(number)) for number in range(2)]
    with bench.interceptor.enqueue(Enqueue("run_many", items, source="swarm")):
        pass

    assert [item.metadata["mageflow_flow"] for item in items] == [f"swarm:{FLOW_ID}:0", f"swarm:{FLOW_ID}:1"]
    assert {item.metadata["traceparent"] for item in items} == {FLOW}
    assert {span.attributes["mageflow.signature.id"] for span in bench.spans.named("create send")} == {FLOW_ID}


def test_one_run_is_one_span(bench: Bench):
    """Name, kind, ids, and the traceparent of that very span in the metadata."""
    metadata = bench.enqueue(run=DispatchRun("send", "{}", SIGNATURE_KEY, "dedupe"))

    span = bench.spans.one("send send")
    assert metadata["traceparent"].split("-")[2] == f"{span.context.span_id:016x}"
    assert span.attributes["messaging.operation.type"] == "send"
    assert span.attributes["messaging.operation.name"] == "run"
    assert span.attributes["messaging.message.id"] == "run-1"
    assert span.attributes["mageflow.enqueue.source"] == "signature"
    assert span.attributes["mageflow.signature.id"] == SIGNATURE_ID
    assert span.attributes["hatchet.payload"] == ""


def test_items_of_a_bulk_call_have_spans_of_their_own(bench: Bench):
    """Each run hangs under its own item, all items under the call."""
    items = enqueue(bench, 3)

    send, creates = bench.spans.one("send send"), bench.spans.named("create send")
    assert {span.parent.span_id for span in creates} == {send.context.span_id}
    assert (send.kind, {span.kind for span in creates}) == (SpanKind.CLIENT, {SpanKind.PRODUCER})
    assert [item.metadata["traceparent"].split("-")[2] for item in items] == [
        f"{span.context.span_id:016x}" for span in creates
    ]
    assert send.attributes["messaging.batch.message_count"] == 3
    assert [span.attributes["messaging.message.id"] for span in creates] == ["run-0", "run-1", "run-2"]
    assert {item.metadata["user"] for item in items} == {"kept"}


def test_a_bulk_call_above_the_limit_links_instead(make_bench):
    """A trace with a thousand children cannot be read."""
    bench = make_bench(trace_fanout_limit=2)
    items = enqueue(bench, 3)

    assert bench.spans.names == ["send send"]
    assert bench.spans.one("send send").kind is SpanKind.PRODUCER
    assert {item.metadata["mageflow_link"] for item in items} == {items[0].metadata["traceparent"]}
    bench.run(bench.attempt(metadata=items[0].metadata), outcome="succeeded")
    process = bench.spans.one("process send")
    assert process.parent is None
    assert process.links[0].context.span_id == bench.spans.one("send send").context.span_id


def test_what_an_ancestor_carried_is_not_inherited(bench: Bench):
    """Where this run has no tracestate and no baggage, the ancestor's must not be merged in."""
    attempt = bench.attempt(metadata={"tracestate": "a=1", "baggage": "tenant=acme"})
    token = current_attempt.set(attempt)
    metadata = bench.enqueue()
    current_attempt.reset(token)

    assert metadata["tracestate"] == metadata["baggage"] == ""


def test_enqueues_are_counted_by_source_and_result(bench: Bench):
    """One per run, and one duration per call."""
    enqueue(bench, 3, source="swarm")
    with pytest.raises(ConnectionError), bench.interceptor.enqueue(Enqueue("run", [EnqueueItem("send", {})])):
        raise ConnectionError("secret")

    seen = bench.samples
    assert seen.value("mageflow_tasks_enqueued_total", task="send", source="swarm", result="ok") == 3.0
    assert seen.value("mageflow_tasks_enqueued_total", task="send", source="direct", result="error") == 1.0
    assert seen.total("mageflow_tasks_enqueued_total") == 4.0
    assert seen.value("mageflow_task_enqueue_duration_seconds_count", operation="run_many") == 1.0
    assert seen.value("mageflow_task_enqueue_duration_seconds_count", operation="run") == 1.0
    failed = bench.spans.named("send send")[-1]
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.status.description == "ConnectionError"
    event = bench.logs.one("mageflow.task.enqueue_failed")
    assert (event["target"], event["source"], event["batch"], event["error_type"]) == (
        "send", "direct", 1, "ConnectionError",
    )  # fmt: skip
    assert bench.logs.one("mageflow.task.enqueued")["batch"] == 3


def test_a_pushed_event_is_no_task(bench: Bench):
    """Which tasks it starts is the engine's to know, and its key is no declared name."""
    metadata = bench.enqueue("user:42:created", operation="push_event", source="event")

    assert bench.samples.value("mageflow_tasks_enqueued_total", task="__event__", source="event", result="ok") == 1.0
    assert bench.samples.total("mageflow_telemetry_dropped_label_values_total") == 0.0
    assert bench.spans.names == ["send event"]
    assert metadata["traceparent"]


def test_an_undeclared_task_is_folded(bench: Bench):
    """A name from outside becomes no label."""
    bench.enqueue("from-a-user")

    assert bench.samples.value("mageflow_tasks_enqueued_total", task="__other__", source="direct", result="ok") == 1.0
    assert bench.samples.value("mageflow_telemetry_dropped_label_values_total", label="task") == 1.0
    assert bench.logs.one("mageflow.telemetry.label_folded")["label"] == "task"


def test_a_workflow_is_enqueued_by_its_own_name(bench: Bench):
    """What is enqueued is a workflow; its name is as declared as its tasks' are."""
    bench.enqueue("send-workflow")

    seen = bench.samples
    assert seen.value("mageflow_tasks_enqueued_total", task="send-workflow", source="direct", result="ok") == 1.0
    assert seen.value("mageflow_tasks_enqueued_total", task="send-workflow", source="direct", result="error") == 0.0


def test_the_namespace_is_no_part_of_a_name(make_bench):
    """Hatchet prefixes workflow names with the namespace; labels do not."""
    bench = make_bench()
    bench.interceptor.event(ClientCreated("localhost", 7070, "staging_", nullcontext))
    bench.enqueue("staging_send")

    assert bench.samples.value("mageflow_tasks_enqueued_total", task="send", source="direct", result="ok") == 1.0


def test_a_task_that_nothing_serves_is_counted_by_reason(bench: Bench):
    """The series of a program that sends the task begin at 0, so the first one is an increase."""
    task = "send-workflow"
    bench.telemetry.recorder.zero_enqueues()
    before = bench.samples
    bench.interceptor.event(RunUnserved(task, "not_served", "add it to the worker", "run-1"))

    assert before.by("reason", "mageflow_tasks_unserved_total", task=task) == {
        "unreachable": 0.0, "no_worker": 0.0, "not_served": 0.0,
    }  # fmt: skip
    seen = bench.samples
    assert seen.value("mageflow_tasks_unserved_total", task=task, reason="not_served") == 1.0
    assert seen.total("mageflow_tasks_unserved_total") == 1.0
    assert bench.logs.one("mageflow.task.unserved")["reason"] == "not_served"
