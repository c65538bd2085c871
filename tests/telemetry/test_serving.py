"""A program that only sends work has metrics too: at a port, or inside its web application."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from mageflow.config import Settings
from mageflow.interceptors import Enqueue, EnqueueItem, TaskDeclared, TaskInfo
from mageflow.telemetry import Telemetry
from mageflow.testing import capture_logs, samples
from tests.telemetry.test_exposition import get

SENDER = """
import asyncio, json, sys, urllib.request
from pathlib import Path
from hatchet_sdk import Hatchet
from mageflow import Mageflow

client = Mageflow(Hatchet())

@client.task(name="sent-only")
async def sent_only(message: dict) -> dict:
    return {}

def scrape(url):
    return urllib.request.urlopen(url, timeout=10).read().decode()

async def main():
    port = client.telemetry.serve("shop")
    before = await asyncio.to_thread(scrape, port.url)
    for _ in range(3):
        await sent_only.aio_run({}, wait_for_result=False)
    after = await asyncio.to_thread(scrape, port.url)
    entries = [path.read_text() for path in Path(sys.argv[1]).glob("*.json")]
    port.stop()
    left = len(list(Path(sys.argv[1]).glob("*.json")))
    print(json.dumps({"before": before, "after": after, "entries": entries, "left": left}))

asyncio.run(main())
"""


def test_a_sender_serves_its_counts_at_a_port_that_prometheus_finds(mageflow_engine, mageflow_redis, tmp_path: Path):
    """The count of runs begins at 0, so that `increase` sees the first one; the entry goes with the port."""
    program, targets = tmp_path / "sender.py", tmp_path / "targets"
    program.write_text(SENDER)
    targets.mkdir()
    ran = subprocess.run(
        [sys.executable, str(program), str(targets)],
        env={**os.environ, "MAGEFLOW_METRICS_PORT": "0", "MAGEFLOW_METRICS_SD_DIR": str(targets)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr
    said = json.loads(ran.stdout.splitlines()[-1])
    labels = {"task": "sent-only", "source": "direct", "result": "ok"}
    assert samples(said["before"]).value("mageflow_tasks_enqueued_total", **labels) == 0.0
    assert samples(said["after"]).value("mageflow_tasks_enqueued_total", **labels) == 3.0
    (entry,) = [json.loads(each)[0]["labels"] for each in said["entries"]]
    assert entry["__meta_mageflow_worker"] == "shop"
    assert said["left"] == 0


@pytest.fixture
def telemetry() -> Telemetry:
    telemetry = Telemetry(Settings(metrics_port=0), registry=CollectorRegistry())
    telemetry.interceptor.event(TaskDeclared(TaskInfo("send", "send", 30.0, 0)))
    return telemetry


async def request(telemetry: Telemetry, *, method: str = "GET", accept: str = "") -> tuple[int, dict[str, str], str]:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"accept", accept.encode())] if accept else []
    await telemetry.asgi_app()({"type": "http", "method": method, "headers": headers}, receive, send)
    start, body = sent
    answered = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], answered, body["body"].decode()


async def test_the_application_answers_in_the_format_of_the_scraper(telemetry: Telemetry):
    """OpenMetrics with exemplars for Prometheus, plain text otherwise; tasks that were declared are at 0."""
    with telemetry.interceptor.enqueue(Enqueue("run", [EnqueueItem("send", {})])):
        pass

    status, headers, body = await request(telemetry)
    assert (status, headers["content-length"]) == (200, str(len(body.encode())))
    assert headers["content-type"].startswith("text/plain")
    labels = {"task": "send", "source": "direct"}
    assert samples(body).value("mageflow_tasks_enqueued_total", result="ok", **labels) == 1.0
    assert samples(body).value("mageflow_tasks_enqueued_total", result="error", **labels) == 0.0

    _, headers, body = await request(telemetry, accept="application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert headers["content-type"].startswith("application/openmetrics-text")
    assert body.endswith("# EOF\n")
    assert (await request(telemetry, method="HEAD"))[2] == ""


async def test_a_collector_that_fails_hides_its_own_metrics_only(telemetry: Telemetry):
    """The scrape that misses them counts it, and the log says which one."""

    class Broken(Collector):
        def collect(self) -> Any:
            raise RuntimeError("broken")

        def describe(self) -> Any:
            return []

    telemetry.recorder.registry.register(Broken())
    with capture_logs() as logs:
        status, _, body = await request(telemetry)
    assert status == 200
    assert samples(body).value("mageflow_tasks_enqueued_total", task="send", source="direct", result="ok") == 0.0
    assert samples(body).value("mageflow_telemetry_errors_total", signal="exposition") == 1.0
    assert [(each["signal"], each["site"], each["error_type"]) for each in logs.named("mageflow.telemetry.error")] == [
        ("exposition", "collector Broken", "RuntimeError")
    ]


async def test_metrics_of_mageflow_that_cannot_be_read_are_an_error_of_the_scrape_alone(telemetry: Telemetry):
    """Status 500, counted and logged: without them Prometheus could not see that they are missing."""

    class Source:
        def samples(self) -> Any:
            raise RuntimeError("broken")

    source = Source()
    telemetry.recorder.instruments.gauges.add(source)
    with capture_logs() as logs:
        assert (await request(telemetry))[0] == 500
    assert [(each["signal"], each["site"]) for each in logs.named("mageflow.telemetry.error")] == [
        ("exposition", "asgi")
    ]
    del source
    assert (await request(telemetry))[0] == 200


def test_a_sender_has_no_health_of_a_loop_and_no_locks(telemetry: Telemetry):
    """These paths belong to workers."""
    port = telemetry.serve()
    try:
        assert get(port.url)[0] == 200
        assert get(port.url.replace("/metrics", "/healthz"))[0] == 404
        assert get(port.url.replace("/metrics", "/debug/locks"))[0] == 404
    finally:
        port.stop()
    assert port.url == ""


def test_without_metrics_there_is_no_port():
    """The setting switches the port off too."""
    assert Telemetry(Settings(metrics=False), registry=CollectorRegistry()).serve().url == ""
