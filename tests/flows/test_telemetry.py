"""The signals of flows: names, labels and values."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from prometheus_client import CollectorRegistry

from mageflow.config import Settings
from mageflow.flows import Flows
from mageflow.signatures import RunIdentity, SwarmConfig
from mageflow.store import AttemptOutcome, Store
from mageflow.telemetry import Telemetry
from mageflow.testing.capture import capture_logs, samples
from tests.flows.conftest import stop
from tests.flows.fake_hatchet import FakeHatchet, FakeWorker


async def echo(message: dict[str, Any]) -> Any:
    return message


async def fail(message: dict[str, Any]) -> None:
    raise ValueError("no good")


class Observed:
    def __init__(self, store: Store, hatchet: FakeHatchet) -> None:
        self.registry = CollectorRegistry()
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        telemetry = Telemetry(Settings(), registry=self.registry, tracer_provider=provider)
        self.telemetry = telemetry
        self.flows = Flows(store, hatchet, hatchet, Settings(), telemetry.interceptor)
        self.worker = FakeWorker(hatchet, self.flows, {"one": echo, "two": echo, "callback": echo, "fail": fail})

    def value(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0

    def span(self, name: str) -> Any:
        (found,) = [each for each in self.exporter.get_finished_spans() if each.name == name]
        return found


@pytest.fixture
async def observed(store: Store, hatchet: FakeHatchet) -> AsyncIterator[Observed]:
    """Flows with telemetry of their own."""
    observed = Observed(store, hatchet)
    yield observed
    await stop(observed.flows)


async def test_a_chain_is_counted_and_timed_once(observed: Observed, hatchet: FakeHatchet) -> None:
    """Started, finished, duration, steps, handovers: each once, with the name of the flow."""
    chain = await observed.flows.creation.chain(["one", "two"], name="order", success=["callback"])
    await observed.flows.start(chain)
    await observed.flows.start(chain)
    await observed.worker.drain()
    labels = {"flow": "chain", "flow_name": "order"}
    assert observed.value("mageflow_flows_started_total", **labels) == 1
    assert observed.value("mageflow_flows_finished_total", **labels, outcome="succeeded") == 1
    assert observed.value("mageflow_flow_duration_seconds_count", **labels) == 1
    assert observed.value("mageflow_flow_steps_sum", flow="chain") == 2
    assert observed.value("mageflow_flow_handover_seconds_count", flow="chain") == 1
    assert observed.value("mageflow_callbacks_total", kind="success", result="enqueued") == 1


async def test_each_item_that_gets_the_place_of_another_is_timed_from_the_end_of_that(
    observed: Observed, hatchet: FakeHatchet
) -> None:
    """Three places: the items after the first three. Places that are filled together are each timed on their own."""
    config = SwarmConfig(max_concurrency=3, refill_linger_ms=5000)
    assert config.refill_batch == 2
    swarm = await observed.flows.creation.swarm(["one"] * 6, name="pack", config=config, closed=True)
    await observed.flows.start(swarm)
    await observed.flows.drain()
    await observed.worker.one()
    await asyncio.sleep(2)
    await observed.worker.one()
    await observed.worker.drain()
    assert (await observed.flows.load(swarm.key)).has_ended
    assert observed.value("mageflow_flow_handover_seconds_count", flow="swarm") == 3
    waited = observed.value("mageflow_flow_handover_seconds_sum", flow="swarm")
    assert 2 <= waited < 4, "one place waited two seconds for the other"
    links = [run.request.link for run in hatchet.runs.values()]
    assert links == ["", "", "", "trace-run-1", "trace-run-1", "trace-run-2"]


async def test_first_steps_of_nested_flows_are_timed_from_what_came_before(
    observed: Observed, hatchet: FakeHatchet
) -> None:
    """In a chain, in a swarm within, and as a callback; nothing came before the first step of the outermost flow."""
    creation = observed.flows.creation
    inner = await creation.chain(["one", "two"], name="inner")
    after = await creation.chain(["one", "two"], name="after")
    swarm = await creation.swarm(["one", inner], name="both", closed=True)
    outer = await creation.chain(["one", swarm, "two"], name="outer", success=[after])
    await observed.flows.start(outer)
    await observed.worker.drain()
    assert (await observed.flows.load(after.key)).has_ended
    # inner: both steps; after: both; outer: its last. Of the swarm its task; inner itself is not a run.
    assert observed.value("mageflow_flow_handover_seconds_count", flow="chain") == 5
    assert observed.value("mageflow_flow_handover_seconds_count", flow="swarm") == 1


async def test_a_suspension_is_no_part_of_a_hand_over(observed: Observed, hatchet: FakeHatchet) -> None:
    """The step was sent, was turned away while suspended, and is timed from resume; a retry is not timed again."""
    chain = await observed.flows.creation.chain(["one", "two"], name="order")
    await observed.flows.start(chain)
    await observed.flows.drain()
    await observed.worker.one()
    await chain.suspend()
    await observed.worker.drain()
    await asyncio.sleep(2)
    await chain.resume()
    await observed.worker.drain()
    assert observed.value("mageflow_flow_handover_seconds_count", flow="chain") == 1
    assert observed.value("mageflow_flow_handover_seconds_sum", flow="chain") < 2


async def test_a_flow_is_one_trace_from_its_start_to_its_close(observed: Observed, hatchet: FakeHatchet) -> None:
    """Every run is sent under the start span; the closing span is its child, back-dated by the clock of Redis."""
    chain = await observed.flows.creation.chain(["one", "two"], name="order")
    await observed.flows.start(chain)
    await observed.worker.drain()
    started, whole = observed.span("start order"), observed.span("order")
    trace = f"{started.context.trace_id:032x}"
    parents = {run.request.traceparent[:-3] for run in hatchet.runs.values()}
    assert parents == {f"00-{trace}-{started.context.span_id:016x}"}
    assert [run.request.link for run in hatchet.runs.values()] == ["", "trace-run-0"]
    assert whole.parent.span_id == started.context.span_id
    assert whole.attributes["mageflow.flow.outcome"] == "succeeded"
    loaded = await observed.flows.load(chain.key)
    begun = [each.at for each in loaded.history if each.status == "active"]
    assert abs(whole.start_time / 1e9 - begun[0].timestamp()) < 0.002


async def test_the_trace_survives_suspend_and_resume(observed: Observed, hatchet: FakeHatchet) -> None:
    """Runs that are sent after resume belong to the same trace."""
    chain = await observed.flows.creation.chain(["one", "two"], name="order")
    await observed.flows.start(chain)
    await chain.suspend()
    await observed.worker.drain()
    await chain.resume()
    await observed.worker.drain()
    assert len({run.request.traceparent for run in hatchet.runs.values()}) == 1
    assert len(hatchet.runs) == 3


async def test_a_failed_flow_is_an_error_and_names_the_task(observed: Observed, hatchet: FakeHatchet) -> None:
    """Status, outcome, critical task."""
    chain = await observed.flows.creation.chain(["one", "fail"], name="order", error=["callback"])
    await observed.flows.start(chain)
    await observed.worker.drain()
    span = observed.span("order")
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["mageflow.flow.critical_task"] == "fail"
    assert observed.value("mageflow_flows_finished_total", flow="chain", flow_name="order", outcome="failed") == 1
    assert observed.value("mageflow_callbacks_total", kind="error", result="enqueued") == 1


async def test_an_interrupted_flow_is_cancelled_not_failed(observed: Observed) -> None:
    """Outcome cancelled, status unset."""
    chain = await observed.flows.creation.chain(["one", "two"], name="order")
    await observed.flows.start(chain)
    await chain.interrupt()
    assert observed.span("order").status.status_code is StatusCode.UNSET
    assert observed.value("mageflow_flows_finished_total", flow="chain", flow_name="order", outcome="cancelled") == 1


@pytest.mark.parametrize(("count", "is_apart"), [(20, False), (200, True)])
async def test_a_large_swarm_links_its_items_instead_of_holding_them(
    observed: Observed, hatchet: FakeHatchet, count: int, is_apart: bool
) -> None:
    """Above the fan-out limit each item starts a trace of its own, linked to the start of the flow."""
    swarm = await observed.flows.creation.swarm(["one"] * count, name="many", config=SwarmConfig(max_concurrency=10))
    await observed.flows.start(swarm)
    (first, *_) = hatchet.runs.values()
    assert first.request.traceparent
    assert (first.request.link == first.request.traceparent) is is_apart


async def test_filling_a_swarm_is_a_span_with_numbers(observed: Observed, hatchet: FakeHatchet) -> None:
    """How many items were started, how many run, how many wait."""
    swarm = await observed.flows.creation.swarm(
        ["one"] * 12, name="many", config=SwarmConfig(max_concurrency=6), closed=True
    )
    await observed.flows.start(swarm)
    await observed.worker.drain()
    spans = [each for each in observed.exporter.get_finished_spans() if each.name == "fill many"]
    numbers = [
        (each.attributes["messaging.batch.message_count"], each.attributes["mageflow.swarm.running"],
         each.attributes["mageflow.swarm.pending"]) for each in spans
    ]  # fmt: skip
    assert numbers == [(6, 6, 6), (4, 6, 2), (2, 6, 0)]


async def test_a_callback_that_fails_is_counted_and_logged(observed: Observed, hatchet: FakeHatchet) -> None:
    """The flow stays succeeded; the failure of its callback has a counter and a log event."""
    with capture_logs() as logs:
        chain = await observed.flows.creation.chain(["one", "two"], name="order", success=["fail"])
        await observed.flows.start(chain)
        await observed.worker.drain()
    assert observed.value("mageflow_callbacks_total", kind="success", result="failed") == 1
    assert observed.value("mageflow_flows_finished_total", flow="chain", flow_name="order", outcome="succeeded") == 1
    assert [each["target"] for each in logs.named("mageflow.callback.failed")] == [f"{chain.key}#.s0"]


async def test_flow_events_carry_the_ids_of_the_flow(observed: Observed, hatchet: FakeHatchet) -> None:
    """Start, steps and end have one id."""
    with capture_logs() as logs:
        chain = await observed.flows.creation.chain(["one", "two"], name="order")
        await observed.flows.start(chain)
        await observed.worker.drain()
    identity = chain.key.rpartition(":")[2]
    for name in ("mageflow.flow.started", "mageflow.flow.finished"):
        (event,) = logs.named(name)
        assert (event["flow"], event["flow_id"]) == ("order", identity)


async def test_telemetry_that_fails_fails_no_flow(store: Store, hatchet: FakeHatchet) -> None:
    """Every instrument and the tracer are broken: the chain runs, and the guard counts the errors."""
    observed = Observed(store, hatchet)
    recorder = observed.telemetry.recorder

    class Broken:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("broken")

    recorder._instruments = Broken()
    recorder.spans._tracer = Broken()
    chain = await observed.flows.creation.chain(["one", "two"], success=["callback"])
    await observed.flows.start(chain)
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(observed.worker.drain(), 10)
    assert (await store.load(chain.key)).status == "done"
    assert recorder.guards.metric.total
    assert recorder.guards.trace.total
    await stop(observed.flows)


async def test_an_end_whose_record_is_gone_is_reported(store: Store, hatchet: FakeHatchet) -> None:
    """Redis has lost the flow while its step ran: what should follow never comes, so the end is counted and logged."""
    registry = CollectorRegistry()
    interceptor = Telemetry(Settings(), registry=registry).interceptor
    flows = Flows(Store(store.port, store.keys, Settings(), interceptor), hatchet, hatchet, Settings())
    chain = await flows.creation.chain(["one", "two"])
    await store.port.command("FLUSHDB")
    with capture_logs() as logs:
        for outcome in ("succeeded", "cancelled"):
            await flows.settle(f"{chain.key}#0", RunIdentity("run"), AttemptOutcome(outcome))
    writes = samples(registry).by("result", "mageflow_signature_writes_total", kind="chain", operation="update")
    assert writes == {"ok": 1.0, "missing": 1.0}
    event = logs.one("mageflow.signature.end_dropped")
    assert (event["kind"], event["signature_id"], event["level"]) == ("chain", chain.key.rpartition(":")[2], "warning")
