"""Captures read spans, samples and log events, and are removed at their end."""

import json
import logging
import threading

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from mageflow.testing import capture_logs, capture_spans, samples


def test_spans_are_captured_in_the_order_they_end():
    """The inner span ends first, with its attributes."""
    provider = TracerProvider()
    tracer = provider.get_tracer("test")

    with capture_spans(provider) as spans, tracer.start_as_current_span("outer"):
        tracer.start_span("inner", attributes={"n": 1}).end()

    assert spans.names == ["inner", "outer"]
    assert spans.one("inner").attributes == {"n": 1}


def test_a_closed_capture_gets_no_more_spans():
    """Two captures of one provider are independent, and a closed one keeps what it has."""
    provider = TracerProvider()
    tracer = provider.get_tracer("test")

    with capture_spans(provider) as outer:
        with capture_spans(provider) as inner:
            tracer.start_span("both").end()
        tracer.start_span("outer only").end()
    tracer.start_span("neither").end()

    assert inner.names == ["both"]
    assert outer.names == ["both", "outer only"]


def test_one_span_of_many_is_an_error_that_lists_them():
    """A test that expects one span and finds another number sees what there was."""
    provider = TracerProvider()

    with capture_spans(provider) as spans:
        provider.get_tracer("test").start_span("there").end()

    with pytest.raises(AssertionError, match=r"0 spans are called 'missing'; there are: \['there'\]"):
        spans.one("missing")


def test_waiting_for_spans_of_another_thread():
    """A wait ends as soon as the span has ended, in whichever thread."""
    provider = TracerProvider()

    with capture_spans(provider) as spans:
        thread = threading.Thread(target=lambda: provider.get_tracer("test").start_span("late").end())
        thread.start()
        assert [span.name for span in spans.wait_for("late")] == ["late"]
        thread.join()

    with pytest.raises(AssertionError, match=r"waited 0.01 s for 2 spans 'late'"):
        spans.wait_for("late", count=2, timeout_seconds=0.01)


def test_spans_of_the_process_wide_provider_need_no_argument(mageflow_spans):
    """The fixture captures from the provider of the program, or sets one."""
    trace.get_tracer("test").start_span("plain").end()

    assert mageflow_spans.names == ["plain"]
    assert mageflow_spans.provider is trace.get_tracer_provider()


@pytest.fixture
def registry() -> CollectorRegistry:
    """A registry with one metric of each kind."""
    registry = CollectorRegistry()
    runs = Counter("runs", "runs", ["task", "outcome"], registry=registry)
    runs.labels("a", "ok").inc(3)
    runs.labels("a", "bad").inc(2)
    runs.labels("b", "ok").inc(10)
    Gauge("level", "level", registry=registry).set(1.5)
    Histogram("wait_seconds", "wait", registry=registry, buckets=[1, 2]).observe(1.2)
    return registry


def test_samples_are_read_by_name_and_exact_labels(registry):
    """`value` is one series, `total` and `by` are sums over the labels that were not given."""
    seen = samples(registry)

    assert seen.value("runs_total", task="a", outcome="ok") == 3
    assert seen.value("level") == 1.5
    assert seen.value("wait_seconds_bucket", le="2.0") == 1
    assert seen.total("runs_total", task="a") == 5
    assert seen.total("runs_total", task="absent") == 0
    assert seen.by("outcome", "runs_total") == {"ok": 13, "bad": 2}
    assert "runs_total" in seen.names()


def test_samples_of_an_endpoint_equal_those_of_its_registry(registry):
    """The body of ``/metrics`` says the same as the registry behind it."""
    body, direct = samples(generate_latest(registry).decode()), samples(registry)

    assert {key: body[key] for key in direct} == dict(direct)


def test_samples_since_an_earlier_moment_are_differences(registry):
    """A test on the process-wide registry sees only what it caused."""
    before = samples(registry)
    Counter("late", "late", registry=registry).inc()

    assert samples(registry).since(before).value("runs_total", task="a", outcome="ok") == 0
    assert samples(registry).since(before).value("late_total") == 1


def test_a_missing_series_is_an_error_that_lists_the_others(registry):
    """Absent and 0 are not the same."""
    with pytest.raises(AssertionError, match=r"no sample runs_total.*'outcome': 'bad', 'task': 'a'"):
        samples(registry).value("runs_total", task="a")


def test_samples_fixture_counts_from_the_start_of_the_test(mageflow_samples):
    """The process-wide registry may hold anything from earlier tests; the fixture shows the growth."""
    counter = Counter("mageflow_test_fixture_growth", "help")
    counter.inc(2)

    assert mageflow_samples.value("mageflow_test_fixture_growth_total") == 2
    assert mageflow_samples.total("mageflow_test_fixture_growth_total") == 2


def test_log_events_are_dictionaries(mageflow_logs):
    """A rendered JSON event is read back, a plain record becomes an event, at any level."""
    logger = logging.getLogger("mageflow.test")
    logger.debug(json.dumps({"event": "task.finished", "outcome": "succeeded"}))
    logger.warning("plain %s", "message")

    assert mageflow_logs.one("task.finished")["outcome"] == "succeeded"
    assert mageflow_logs.one("plain message")["level"] == "warning"
    assert mageflow_logs.names == ["task.finished", "plain message"]


def test_log_capture_leaves_the_logger_as_it_was():
    """Level and handlers are put back."""
    logger = logging.getLogger("mageflow.test.restored")
    logger.setLevel(logging.ERROR)
    with capture_logs("mageflow.test.restored") as logs:
        logger.debug("seen")
    logger.error("not seen")

    assert logs.names == ["seen"]
    assert logger.level == logging.ERROR
    assert logger.handlers == []
