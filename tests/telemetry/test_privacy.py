"""A marker put wherever users put data comes out nowhere."""

import json
import logging

import pytest
from opentelemetry import baggage, trace
from opentelemetry import context as otel_context
from opentelemetry.sdk.trace import Span, SpanProcessor
from prometheus_client.openmetrics.exposition import generate_latest

from mageflow.errors import StoreUnavailableError
from mageflow.interceptors import Attempt, Enqueue, EnqueueItem, RedisCall, SignatureLoad, Stagger, TimeoutExtension
from tests.telemetry.conftest import STAGGERED, Bench

CANARY = "canary-7f3a"


def everything_with_the_canary(bench: Bench) -> dict[str, object]:
    token = otel_context.attach(baggage.set_baggage("user", CANARY))
    item = EnqueueItem("crowd", {"customer": CANARY})
    with bench.interceptor.enqueue(Enqueue("run", [item])):
        pass
    with pytest.raises(RuntimeError), bench.interceptor.enqueue(Enqueue("run", [EnqueueItem("send", {"x": CANARY})])):
        raise RuntimeError(CANARY)
    attempt = bench.attempt(STAGGERED, metadata={**item.metadata, "user": CANARY})
    with pytest.raises(ValueError, match=CANARY):
        fail_everywhere(bench, attempt)
    otel_context.detach(token)
    return item.metadata


def fail_everywhere(bench: Bench, attempt: Attempt) -> None:
    interceptor = bench.interceptor
    with interceptor.attempt(attempt):
        load, call = SignatureLoad("task", "sig-1"), RedisCall("admit")
        with pytest.raises(StoreUnavailableError), interceptor.load_signature(load), interceptor.redis(call):
            raise StoreUnavailableError("admit", CANARY)
        stagger, extension = Stagger(attempt, 3.0, 1.0), TimeoutExtension(attempt, "stagger", 1.0)
        with interceptor.stagger(stagger), pytest.raises(RuntimeError), interceptor.extend_timeout(extension):
            raise RuntimeError(CANARY)
        with interceptor.execute(attempt):
            attempt.outcome, attempt.exception = "failed", ValueError(CANARY)
            raise attempt.exception


def test_nothing_of_the_users_data_is_in_any_signal(bench: Bench):
    """Inputs, metadata, exception texts, undeclared names and baggage: in no span, sample or record."""
    metadata = everything_with_the_canary(bench)

    assert metadata.pop("customer") == CANARY, "the user's own metadata is the user's"
    assert CANARY not in json.dumps(metadata)
    spans = [span.to_json() for span in bench.spans]
    assert len(spans) == 6
    assert not [span for span in spans if CANARY in span]
    assert CANARY not in generate_latest(bench.registry).decode()
    assert len(bench.logs) >= 5
    recorded = [event for event in bench.logs.events if CANARY in json.dumps(event, default=str)]
    assert recorded == []


def test_records_carry_no_exception_object(bench: Bench, caplog: pytest.LogCaptureFixture):
    """A formatter that prints ``exc_info`` would print its text."""
    bench.run(bench.attempt(), ValueError(CANARY), outcome="failed")

    assert [record.exc_info for record in caplog.records if record.name == "mageflow"] == [None, None]
    assert CANARY not in caplog.text
    assert logging.getLogger("mageflow").handlers


def test_our_spans_shield_themselves_from_the_sdks_processor(bench: Bench):
    """Hatchet's processor puts the whole input on every span that has no ``hatchet.payload`` yet."""

    class LikeHatchets(SpanProcessor):
        def on_start(self, span: Span, parent_context: object = None) -> None:
            for key, value in {"hatchet.payload": CANARY, "hatchet.step_run_id": "theirs"}.items():
                if key not in (span.attributes or {}):
                    span.set_attribute(key, value)

    bench.spans.provider.add_span_processor(LikeHatchets())
    everything_with_the_canary(bench)
    bench.spans.provider.get_tracer("user").start_span("user").end()

    assert bench.spans.one("user").attributes["hatchet.payload"] == CANARY
    ours = [span for span in bench.spans if span.instrumentation_scope.name == "mageflow"]
    assert {span.attributes["hatchet.payload"] for span in ours} == {""}
    assert trace.get_current_span() is trace.INVALID_SPAN
