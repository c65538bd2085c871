"""Logs by OTLP: the lines of standard error, by a real exporter over real sockets, and what a dead collector costs."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hatchet_sdk import Hatchet
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from mageflow.testing import WorkerProcess
from tests.telemetry.otlp_receiver import serve

WORKER = """
import logging
from hatchet_sdk import Hatchet
from mageflow import Mageflow
from mageflow.telemetry import configure

client = Mageflow(Hatchet())

@client.task(name="pushed")
async def pushed(message: dict) -> dict:
    logging.getLogger("shop").warning("from the body")
    return {}

if __name__ == "__main__":
    configure(service_name="shop", resource_attributes={"deployment.environment.name": "stage"})
    client.worker("otlp", workflows=[pushed]).start()
"""


class Received:
    """What an OTLP receiver got."""

    def __init__(self) -> None:
        self.requests: list[ExportLogsServiceRequest] = []

    @property
    def records(self) -> list[LogRecord]:
        scopes = [scope for each in self.requests for of in each.resource_logs for scope in of.scope_logs]
        return [record for scope in scopes for record in scope.log_records]

    @property
    def bodies(self) -> list[str]:
        return [record.body.string_value for record in self.records]


@pytest.fixture
def receiver() -> Iterator[tuple[str, Received]]:
    """An OTLP receiver: its URL and what it got."""
    received = Received()
    with serve("/v1/logs", lambda body: received.requests.append(ExportLogsServiceRequest.FromString(body))) as url:
        yield url, received


def run(program: str, *, timeout: float = 200, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **environment}, capture_output=True, text=True,
        check=False, timeout=timeout,
    )  # fmt: skip


@pytest.mark.slow
def test_a_worker_sends_the_lines_it_prints(mageflow_engine, receiver, tmp_path: Path):
    """Every line of the process, Hatchet's too, with severity and the ids of the attempt; the last ones at the end."""
    url, received = receiver
    program = tmp_path / "program.py"
    program.write_text(WORKER)
    environment = {"MAGEFLOW_METRICS_PORT": "0", "OTEL_LOGS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": url}
    output = tmp_path / "output"
    with WorkerProcess(mageflow_engine, program, output=output, environment=environment):
        # Not until the line is there: SIGTERM may come while it is written, and the handler of the SDK writes one too.
        Hatchet().stubs.task(name="pushed").run()
        assert "mageflow.task.finished" in output.read_text()
    printed = [json.loads(line) for line in output.read_text().splitlines()]
    sent = [json.loads(body) for body in received.bodies]
    events = [each["event"] for each in sent]
    assert [each for each in printed if each["event"].startswith("mageflow.")] == [
        each for each in sent if each["event"].startswith("mageflow.")
    ]
    for of_worker in ("mageflow.worker.started", "mageflow.task.finished", "mageflow.worker.stopping"):
        assert events.count(of_worker) == 1, events
    assert {each["logger"].split(".")[0] for each in sent} >= {"mageflow", "hatchet", "shop"}

    (record,) = [each for each in received.records if "from the body" in each.body.string_value]
    line = json.loads(record.body.string_value)
    assert line["task"] == "pushed"
    assert (record.trace_id.hex(), record.span_id.hex()) == (line["trace_id"], line["span_id"])
    assert (record.severity_text, record.severity_number) == ("warning", 13)
    (resource, *_) = [each.resource for request in received.requests for each in request.resource_logs]
    attributes = {each.key: each.value.string_value or each.value.int_value for each in resource.attributes}
    assert attributes["service.name"] == "shop"
    assert attributes["deployment.environment.name"] == "stage"
    assert {"service.instance.id", "host.name", "process.pid"} <= attributes.keys()


TWO_LINES = """
import logging, sys
from mageflow.telemetry import configure
alone = logging.getLogger("alone")
alone.propagate = False
alone.addHandler(logging.StreamHandler(sys.stdout))
configure(service_name="shop", logs=%s)
configure(service_name="shop", logs=%s)
logging.getLogger("shop").error("through the root")
alone.error("past the root")
"""


def test_each_record_is_sent_once_and_as_json(receiver):
    """Also in the format for people, after two calls, and from a logger that does not propagate."""
    url, received = receiver
    ended = run(TWO_LINES % ('"console"', '"console"'), OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=f"{url}/v1/logs")
    assert "through the root" in ended.stderr
    assert [json.loads(body)["event"] for body in received.bodies] == ["through the root", "past the root"]


@pytest.mark.parametrize(
    ("logs", "environment"),
    [
        ('"json"', {"OTEL_EXPORTER_OTLP_ENDPOINT": "{url}"}),
        ('"json"', {"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "{url}/v1/logs", "OTEL_LOGS_EXPORTER": "none"}),
        ("None", {"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "{url}/v1/logs"}),
    ],
)
def test_logs_are_sent_only_where_they_are_asked_for(receiver, logs, environment):
    """The general endpoint is often one for traces alone; ``none`` wins over an endpoint; None leaves logging alone."""
    url, received = receiver
    ended = run(TWO_LINES % (logs, logs), **{name: text.format(url=url) for name, text in environment.items()})
    assert ended.returncode == 0, ended.stderr
    assert received.requests == []


def test_a_variable_with_an_unknown_value_is_refused():
    """With the name of the variable and what it may be."""
    ended = run(TWO_LINES % ('"json"', '"json"'), OTEL_LOGS_EXPORTER="syslog")
    assert "ConfigurationError: OTEL_LOGS_EXPORTER is syslog; known are otlp, console, none" in ended.stderr


MANY_LINES = """
import logging, time
from mageflow.telemetry import configure
configure(service_name="shop")
log = logging.getLogger("shop")
before = time.perf_counter()
for number in range(5000):
    log.warning("line %d", number)
print(time.perf_counter() - before, flush=True)
time.sleep(2)
"""


def test_a_dead_collector_costs_a_line_nothing_and_makes_no_circle():
    """More lines than the queue holds: none waits, and what the exporter complains about is printed and not sent."""
    before = time.monotonic()
    ended = run(
        MANY_LINES,
        OTEL_EXPORTER_OTLP_LOGS_ENDPOINT="http://127.0.0.1:1/v1/logs",
        OTEL_BLRP_MAX_QUEUE_SIZE="600",
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert float(ended.stdout) < 50.0  # 4,400 lines that wait for a place take minutes
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    assert sum(each["logger"] == "shop" for each in lines) == 5000
    of_exporter = [each for each in lines if each["logger"].startswith("opentelemetry")]
    assert 1 <= len(of_exporter) < 100, of_exporter[:5]
    assert time.monotonic() - before < 50.0
