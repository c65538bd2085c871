"""Log events: where they arrive, what they carry, and that nothing global is configured."""

import json
import logging
import subprocess
import sys
import time

import pytest
import structlog

from mageflow.telemetry import add_trace_context, names
from tests.telemetry.conftest import Bench


@pytest.mark.parametrize(
    ("outcome", "error", "facts", "event", "level"),
    [
        ("succeeded", None, {}, "mageflow.task.finished", "info"),
        ("failed", ValueError("x"), {}, "mageflow.task.failed", "error"),
        ("retried", ValueError("x"), {"will_retry": True}, "mageflow.task.failed", "warning"),
        ("timed_out", ValueError("x"), {}, "mageflow.task.timed_out", "error"),
        ("cancelled", ValueError("x"), {}, "mageflow.task.cancelled", "info"),
        ("skipped", ValueError("x"), {"skip_reason": "suspended"}, "mageflow.task.skipped", "info"),
    ],
)
def test_each_end_is_one_event(
    bench: Bench, outcome: str, error: Exception | None, facts: dict, event: str, level: str
):
    """One fact, one event, at the level it deserves, with the fields the dictionary lists."""
    bench.run(bench.attempt(), error, outcome=outcome, **facts)

    assert bench.logs.names == ["mageflow.task.started", event]
    recorded = bench.logs.one(event)
    assert recorded["level"] == level
    declared = next(each for each in names.EVENTS if each.name == event)
    assert set(declared.fields) <= set(recorded)
    known = {*declared.fields, *names.events.CONTEXT_FIELDS, *names.events.TRACE_FIELDS}
    assert set(recorded) <= known | {"event", "level", "logger", "timestamp"}


def test_an_attempt_is_one_line_at_level_info(bench: Bench):
    """What an operator reads of a run is in its last event; its begin is shown at level debug only."""
    metadata = bench.enqueue()
    metadata["mageflow_enqueued_at"] = f"{time.time() - 7.0:.6f}"
    bench.run(bench.attempt(metadata=metadata), outcome="succeeded")
    bench.run(bench.attempt(metadata=metadata, attempt_number=2), outcome="succeeded")

    assert bench.logs.one("mageflow.task.enqueued")["level"] == "debug"
    assert [each["level"] for each in bench.logs.named("mageflow.task.started")] == ["debug", "debug"]
    first, retry = bench.logs.named("mageflow.task.finished")
    assert first["level"] == "info"
    assert first["queue_wait_s"] == pytest.approx(7.0, abs=0.5)
    assert retry["queue_wait_s"] is None


def test_every_record_inside_an_attempt_knows_where_it_belongs(bench: Bench):
    """Ids of the run and of the span; the user's own structlog records, too."""
    attempt = bench.attempt(
        signature_id="sig-1", flow_kind="chain", flow_id="f-1", flow_name="signup", attempt_number=2
    )
    with bench.interceptor.attempt(attempt):
        bench.telemetry.log.info("mine", rows=3)
    bench.telemetry.log.info("outside")

    span = bench.spans.one("process send")
    for event in (bench.logs.one("mageflow.task.started"), bench.logs.one("mine")):
        fields = {key: event[key] for key in (*names.events.CONTEXT_FIELDS, *names.events.TRACE_FIELDS)}
        assert fields == {
            "task": "send",
            "run_id": "run-1",
            "step_run_id": "step-1",
            "attempt": 2,
            "worker": "worker-1",
            "flow": "signup",
            "flow_id": "f-1",
            "signature_id": "sig-1",
            "trace_id": f"{span.context.trace_id:032x}",
            "span_id": f"{span.context.span_id:016x}",
            "trace_sampled": True,
        }
        assert event["logger"] == "mageflow"
        assert event["timestamp"].endswith("Z")
    assert bench.logs.one("mine")["rows"] == 3
    assert not set(names.events.CONTEXT_FIELDS) & set(bench.logs.one("outside"))


def test_fields_the_user_bound_are_restored(bench: Bench):
    """An attempt covers a field of the same name, and takes its cover away."""
    structlog.contextvars.bind_contextvars(task="mine", request="r-1")
    bench.run(bench.attempt(), outcome="succeeded")

    assert bench.logs.one("mageflow.task.started")["request"] == "r-1"
    assert structlog.contextvars.get_contextvars() == {"task": "mine", "request": "r-1"}


def test_plain_handlers_receive_json(bench: Bench, caplog: pytest.LogCaptureFixture):
    """Hatchet's forwarder and every root handler format a line of JSON with any formatter."""
    bench.run(bench.attempt(), outcome="succeeded")

    lines = [record.getMessage() for record in caplog.records if record.name == "mageflow"]
    assert [json.loads(line)["event"] for line in lines] == ["mageflow.task.started", "mageflow.task.finished"]
    formatted = logging.Formatter("%(levelname)s %(message)s").format(caplog.records[-1])
    assert json.loads(formatted.removeprefix("INFO "))["outcome"] == "succeeded"


def test_structlogs_own_formatter_receives_fields(bench: Bench, caplog: pytest.LogCaptureFixture):
    """`ProcessorFormatter` gets the dictionary and renders it as the user wants it."""
    bench.run(bench.attempt(), outcome="succeeded")
    formatter = structlog.stdlib.ProcessorFormatter(
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.KeyValueRenderer(key_order=["event", "outcome"]),
        ]
    )

    assert formatter.format(caplog.records[-1]).startswith("event='mageflow.task.finished' outcome='succeeded'")


def test_a_user_who_configured_structlog_has_the_last_word(bench: Bench, caplog: pytest.LogCaptureFixture):
    """Their processors apply to our events."""
    structlog.configure(processors=[structlog.processors.KeyValueRenderer(key_order=["event"])])
    bench.run(bench.attempt(), outcome="succeeded")

    assert caplog.records[-1].getMessage().startswith("event='mageflow.task.finished'")


def test_a_user_whose_loggers_are_awaited_gets_every_event(bench: Bench, caplog: pytest.LogCaptureFixture):
    """``AsyncBoundLogger`` has coroutine methods, which cannot be awaited here: its processors are used without it."""
    structlog.configure(
        wrapper_class=structlog.stdlib.AsyncBoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        processors=[structlog.stdlib.add_log_level, structlog.processors.JSONRenderer()],
    )
    with caplog.at_level(logging.INFO, "mageflow"):
        bench.run(bench.attempt(), outcome="succeeded")

    assert [json.loads(each)["event"] for each in caplog.messages] == ["mageflow.task.finished"]
    assert bench.samples.total("mageflow_telemetry_errors_total") == 0.0


def test_fields_that_records_reserve_are_not_lost(make_bench, caplog: pytest.LogCaptureFixture):
    """``render_to_log_kwargs`` makes attributes of fields, and a record refuses a second ``name`` or ``message``."""
    structlog.configure(
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        processors=[structlog.contextvars.merge_contextvars, structlog.stdlib.render_to_log_kwargs],
    )
    bench = make_bench(exception_detail="message")
    with caplog.at_level(logging.INFO, "mageflow"):
        bench.telemetry.recorder.log.emit(names.events.FLOW_STARTED, name="signup", steps=3)
        bench.run(bench.attempt(), ValueError("boom"), outcome="failed")

    started, failed = caplog.records
    assert (started.message, vars(started)["name_"], vars(started)["steps"]) == ("mageflow.flow.started", "signup", 3)
    assert (failed.message, vars(failed)["message_"]) == ("mageflow.task.failed", "boom")


def test_structlogs_capture_works(bench: Bench):
    """`structlog.testing.capture_logs` sees our events as it sees everybody's."""
    with structlog.testing.capture_logs() as captured:
        bench.run(bench.attempt(), outcome="succeeded")

    assert [each["event"] for each in captured] == ["mageflow.task.started", "mageflow.task.finished"]


def test_a_filtered_event_is_not_built(make_bench, monkeypatch: pytest.MonkeyPatch):
    """Below the logger's level nothing is rendered."""
    bench = make_bench()
    logging.getLogger("mageflow").setLevel(logging.WARNING)
    bench.run(bench.attempt(), outcome="succeeded")

    assert bench.logs.names == []


def test_add_trace_context_says_nothing_outside_of_a_span(bench: Bench):
    """The public processor adds ids inside a span and leaves other records alone."""
    assert add_trace_context(None, "info", {"event": "x"}) == {"event": "x"}


def test_nothing_global_is_configured():
    """Making and using telemetry leaves structlog, the root logger and OpenTelemetry's provider alone."""
    program = """
import logging, structlog
from opentelemetry import trace
from mageflow.config import Settings
from mageflow.interceptors import Attempt, TaskInfo
from mageflow.telemetry import Telemetry
telemetry = Telemetry(Settings())
task = TaskInfo("send", "send", 30.0, 0)
with telemetry.interceptor.attempt(Attempt(task, "r", "s", "w", 1, 1, {}, lambda: False)):
    telemetry.log.info("x")
assert not structlog.is_configured()
assert logging.getLogger().handlers == [] and logging.getLogger("mageflow").handlers == []
assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
