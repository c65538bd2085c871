"""`configure`: one line sets up traces and logs; only what was asked for, and only once."""

import json
import os
import subprocess
import sys
import time

import pytest

from mageflow.distribution import installs

PROLOGUE = """
import time
import io, logging, sys, structlog
from opentelemetry import trace
from mageflow.telemetry import configure
stream = io.StringIO()
"""


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: OpenTelemetry's provider can be set once per process."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", PROLOGUE + program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def printed(program: str, **environment: str) -> str:
    ran = run(program, **environment)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_every_logger_speaks_json_with_the_ids_of_the_span():
    """structlog, the standard library and mageflow itself: one object per line."""
    lines = printed("""
from mageflow.config import Settings
from mageflow.interceptors import Attempt, TaskInfo
from mageflow.telemetry import Telemetry
configure(service_name="shop", stream=sys.stdout, resource_attributes={"deployment.environment.name": "test"})
attempt = Attempt(TaskInfo("send", "send", 30.0, 0), "r-1", "s-1", "w-1", 1, 1, {}, lambda: False)
with Telemetry(Settings(metrics=False)).interceptor.attempt(attempt):
    structlog.get_logger("shop").info("sold", pieces=2)
    logging.getLogger("shop.db").warning("slow query of %d ms", 900)
provider = trace.get_tracer_provider()
print(json_resource := provider.resource.attributes["service.name"])
""").splitlines()
    sold, slow, finished = (json.loads(line) for line in lines[:3])

    assert [sold["event"], slow["event"], finished["event"]] == [
        "sold", "slow query of 900 ms", "mageflow.task.finished",
    ]  # fmt: skip
    assert len({each["trace_id"] for each in (sold, slow, finished)}) == 1
    assert {each["run_id"] for each in (sold, slow, finished)} == {"r-1"}
    assert (sold["pieces"], sold["logger"], slow["level"], slow["logger"]) == (2, "shop", "warning", "shop.db")
    assert all(each["timestamp"].endswith("Z") for each in (sold, slow, finished))
    assert lines[3] == "shop"


def test_an_exception_is_rendered_into_the_object():
    """From any logger: its traceback is text in a field, on the same line, if that is asked for."""
    lines = printed("""
configure(service_name="shop", stream=sys.stdout, exception_detail="full")
for log in (structlog.get_logger("shop"), logging.getLogger("shop.db")):
    try:
        raise KeyError("article")
    except KeyError:
        log.exception("failed")
""").splitlines()

    assert len(lines) == 2
    for line in lines:
        record = json.loads(line)
        assert (record["event"], record["level"]) == ("failed", "error")
        assert record["exception"].endswith("KeyError: 'article'")


@pytest.mark.parametrize(
    ("detail", "expected"),
    [("", {"exception": "KeyError"}), ("message", {"exception": "KeyError", "message": "'article'"})],
)
def test_the_text_of_an_exception_is_left_out_unless_the_setting_lets_it_in(detail, expected):
    """Its class and the line that raised it are always there."""
    (line,) = printed(
        """
configure(service_name="shop", stream=sys.stdout)
try:
    raise KeyError("article")
except KeyError:
    logging.getLogger("shop.db").exception("failed")
""",
        **({"MAGEFLOW_EXCEPTION_DETAIL": detail} if detail else {}),
    ).splitlines()

    record = json.loads(line)
    assert {key: record[key] for key in ("exception", "message") if key in record} == expected
    assert record["raised_at"].startswith("__main__:")
    assert "Traceback" not in line


def test_other_handlers_on_the_standard_streams_write_the_same_format():
    """Before the call and, for Hatchet's logger, after it; a logger that propagates writes a record once."""
    lines = printed("""
logging.basicConfig(stream=sys.stdout, format="plain %(message)s")
library = logging.getLogger("library")
library.addHandler(logging.StreamHandler(sys.stdout))
closed = logging.getLogger("closed")
closed.propagate = False
closed.addHandler(logging.StreamHandler(sys.stdout))
configure(service_name="shop", stream=sys.stdout)
hatchet = logging.getLogger("hatchet")
hatchet.propagate = False
hatchet.addHandler(logging.StreamHandler(sys.stdout))
for name in ("", "library", "closed", "hatchet"):
    logging.getLogger(name).warning("once")
""").splitlines()

    assert [json.loads(line)["logger"] for line in lines] == ["root", "library", "closed", "hatchet"]


def test_hooks_of_the_program_for_uncaught_exceptions_stay():
    """An error tracker installs one, and it must get every exception."""
    assert (
        printed("""
def mine(*_): print("mine")
sys.excepthook = mine
configure(service_name="shop", stream=sys.stdout)
sys.excepthook(KeyError, KeyError("x"), None)
configure(service_name="shop", logs="console", stream=sys.stdout)
import threading
print(sys.excepthook is mine, threading.excepthook is threading.__excepthook__)
""")
        == "mine\nTrue True\n"
    )


def test_the_console_is_for_people():
    """Readable, without colours when it is no terminal."""
    out = printed("""
configure(service_name="shop", logs="console", stream=sys.stdout)
structlog.get_logger("shop").info("sold", pieces=2)
""")
    assert "sold" in out
    assert "pieces=2" in out
    assert "\x1b" not in out
    assert not out.startswith("{")


def test_a_format_that_does_not_exist_is_refused():
    """It was taken for the console. Nothing is set up then."""
    out = printed("""
for wrong in ({"logs": "jsno"}, {"exception_detail": "all"}):
    try:
        configure(service_name="shop", **wrong)
    except ValueError as error:
        print(type(error).__name__, error)
print(structlog.is_configured(), logging.getLogger().handlers)
""")
    assert out.splitlines() == [
        "ConfigurationError there is no format of logs 'jsno'; did you mean 'json'?",
        "ConfigurationError there is no exception_detail 'all'; known are type, message, full",
        "False []",
    ]


def test_nothing_is_set_up_where_a_variable_of_mageflow_is_wrong():
    """It was read last, after the provider was set and the push had started."""
    out = printed(
        """
import threading
try:
    configure(service_name="shop")
except ValueError as error:
    print("exception_detail" in str(error))
print(type(trace.get_tracer_provider()).__name__, structlog.is_configured(), threading.active_count())
""",
        MAGEFLOW_EXCEPTION_DETAIL="all",
        OTEL_EXPORTER_OTLP_METRICS_ENDPOINT="http://127.0.0.1:1",
    )
    assert out.splitlines() == ["True", "ProxyTracerProvider False 1"]


def test_logging_can_be_left_alone():
    """Traces only."""
    assert (
        printed("""
configure(service_name="shop", logs=None)
print(structlog.is_configured(), logging.getLogger().handlers)
""")
        == "False []\n"
    )


def test_calling_it_again_replaces_one_handler_and_nothing_else():
    """The user's handlers and the provider stay."""
    assert (
        printed("""
mine = logging.StreamHandler(io.StringIO())
logging.getLogger().addHandler(mine)
configure(service_name="shop", stream=stream)
provider = trace.get_tracer_provider()
configure(service_name="shop", logs="console", stream=stream)
root = logging.getLogger()
print(len(root.handlers), mine in root.handlers, trace.get_tracer_provider() is provider)
logging.getLogger("x").info("once")
print(stream.getvalue().count("once"))
""")
        == "2 True True\n1\n"
    )


def test_a_provider_the_program_has_set_up_is_kept():
    """With its exporters and its resource."""
    assert (
        printed("""
from opentelemetry.sdk.trace import TracerProvider
mine = TracerProvider()
trace.set_tracer_provider(mine)
configure(service_name="shop", logs=None)
print(trace.get_tracer_provider() is mine)
""")
        == "True\n"
    )


def test_spans_are_exported_only_where_an_endpoint_is_set():
    """The environment is read when the function is called; the exporter is not even imported otherwise."""
    program = """
configure(service_name="shop", logs=None)
processor = trace.get_tracer_provider()._active_span_processor
print(len(processor._span_processors), "opentelemetry.exporter.otlp.proto.http.trace_exporter" in sys.modules)
"""
    assert printed(program) == "0 False\n"
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
    assert printed(program, **endpoint) == "1 True\n"


def test_a_missing_exporter_says_what_to_install():
    """Before anything has been set up."""
    endpoint = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
    ran = run(
        """
sys.modules["opentelemetry.exporter.otlp.proto.http.trace_exporter"] = None
from mageflow.errors import ConfigurationError
try:
    configure(service_name="shop")
except ConfigurationError as error:
    print(error)
print(structlog.is_configured(), type(trace.get_tracer_provider()).__name__)
""",
        **{endpoint: "http://127.0.0.1:1"},
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == [
        f"{endpoint} is set, and the OTLP exporter is not installed: {installs('otlp')}",
        "False ProxyTracerProvider",
    ]


def test_a_dead_collector_costs_a_task_nothing():
    """Export happens elsewhere; a span ends at once."""
    took = float(
        printed(
            """
import time
configure(service_name="shop", logs=None)
tracer = trace.get_tracer("x")
before = time.perf_counter()
for _ in range(100):
    tracer.start_span("x").end()
print(time.perf_counter() - before, flush=True)
import os
os._exit(0)
""",
            OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1",
        )
    )
    assert took < 2.0


def test_a_dead_collector_does_not_keep_the_process():
    """It ends within its grace period: the SDK alone waits for half a minute."""
    program = """
import time
configure(service_name="shop", logs=None)
tracer = trace.get_tracer("x")
for _ in range(2000):
    tracer.start_span("x").end()
print(time.time(), flush=True)
"""
    began = float(printed(program, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1"))
    assert time.time() - began < 25.0


def test_importing_telemetry_loads_no_library():
    """Names are resolved on first use."""
    program = """
print([m for m in ("prometheus_client", "hatchet_sdk", "redis", "pydantic", "mageflow.telemetry.interceptor")
       if m in sys.modules])
"""
    ran = subprocess.run(
        [sys.executable, "-c", "import sys, mageflow.telemetry" + program], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "[]"


def test_console_logs_show_data_as_text():
    """No value of a local variable, no escape sequence and no forged line reaches the terminal."""
    shown = printed(
        """
configure(service_name="shop", logs="console", stream=sys.stdout)
def charge(card):
    secret = "sk_live_" + card
    raise ValueError("declined \\x1b[31m")
try:
    charge("4242")
except ValueError:
    logging.getLogger("shop").exception("charge failed")
structlog.get_logger("x").warning("event\\nforged", name="\\x1b]0;title\\x07", d={"a": "\\x9b31m"}, n=3)
"""
    )

    assert "sk_live_4242" not in shown
    assert "ValueError: declined \\x1b[31m" in shown
    assert "event\\nforged" in shown
    assert "\\x1b]0;title\\x07" in shown
    assert "n=3" in shown
    assert not set(shown) & {"\x1b", "\x07", "\x9b"}


def pushing(**environment: str) -> str:
    return printed(
        """
from mageflow.errors import ConfigurationError
import threading
try:
    configure(service_name="shop", logs=None)
    configure(service_name="shop", logs=None)
    print(len([each for each in threading.enumerate() if each.name == "mageflow-otlp-metrics"]), flush=True)
except ConfigurationError as error:
    print(error, flush=True)
import os
os._exit(0)
""",
        **environment,
    ).strip()


def test_metrics_are_sent_only_where_they_are_asked_for():
    """The general endpoint is often one for traces alone; ``none`` wins over an endpoint."""
    dead = "http://127.0.0.1:1"
    assert pushing(OTEL_EXPORTER_OTLP_ENDPOINT=dead) == "0"
    assert pushing(OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=dead, OTEL_METRICS_EXPORTER="none") == "0"
    assert pushing(OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=dead) == "1"
    assert pushing(OTEL_METRICS_EXPORTER="prometheus, otlp") == "1"


def test_variables_of_metrics_with_unknown_values_are_refused():
    """With the name of the variable and what it may be."""
    assert pushing(OTEL_METRICS_EXPORTER="statsd") == (
        "OTEL_METRICS_EXPORTER is statsd; known are otlp, prometheus, none"
    )
    assert pushing(OTEL_METRIC_EXPORT_INTERVAL="soon") == (
        "OTEL_METRIC_EXPORT_INTERVAL is 'soon', which is not a number of milliseconds above 0"
    )


def test_a_dead_collector_of_metrics_does_not_keep_the_program_from_ending():
    """The last push is given three seconds."""
    before = time.monotonic()
    printed(
        "configure(service_name='shop', logs=None)",
        OTEL_EXPORTER_OTLP_METRICS_ENDPOINT="http://127.0.0.1:1/v1/metrics",
    )
    assert time.monotonic() - before < 50.0


DEAD = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}


def test_three_dead_collectors_keep_the_program_for_as_long_as_one():
    """Spans, metrics and logs share three seconds, and each gets half a second: four in all."""
    first, second, third = map(
        float,
        printed(
            """
import time
from mageflow.telemetry.last_seconds import last_seconds
first = last_seconds()
time.sleep(1)
second = last_seconds()
time.sleep(2.5)
print(first, second, last_seconds())
"""
        ).split(),
    )
    assert (first, third) == (3.0, 0.5)
    assert second < 2.1

    program = """
import time
configure(service_name="shop", logs="json")
for _ in range(2000):
    trace.get_tracer("x").start_span("x").end()
import logging
logging.getLogger("shop").warning("the last")
print(time.time(), flush=True)
"""
    began = float(printed(program, OTEL_LOGS_EXPORTER="otlp", OTEL_METRICS_EXPORTER="otlp", **DEAD).splitlines()[-1])
    assert time.time() - began < 25.0
