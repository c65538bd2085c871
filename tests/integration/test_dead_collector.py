"""A worker whose OTLP collector is dead ends soon after its work: a process, a real engine, SIGTERM."""

import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from mageflow.engine import LocalEngine
from mageflow.testing.ports import free_port
from mageflow.testing.workers import WorkerProcess
from tests.integration.conftest import until

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("exporting_worker.py")
ENDS_SECONDS = 30.0
"""The grace period of Kubernetes. It takes 5.4 s; the exporters alone would repeat for half a minute each."""


@contextmanager
def refuses() -> Generator[int]:
    """A port at which nothing listens."""
    yield free_port()


@contextmanager
def never_answers() -> Generator[int]:
    """A port that accepts every connection, reads nothing and keeps it."""
    kept: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    kept.append(server.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        assert kept, "no exporter has connected"
        server.shutdown(socket.SHUT_RDWR)
    for each in kept:
        each.close()


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("collector", [refuses, never_answers])
async def test_a_worker_with_a_dead_collector_ends_soon_after_its_work(
    collector: Callable[[], Any], protocol: str, mageflow_engine: LocalEngine, tmp_path: Path
) -> None:
    """The run that is in flight at SIGTERM ends as succeeded, and the process does not wait for the three exporters."""
    with collector() as port:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_INSECURE": "true",
            "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
            "OTEL_LOGS_EXPORTER": "otlp",
            "MAGEFLOW_METRICS_PORT": "0",
            "PYTHONPATH": str(SCRIPT.parents[2]),
        }
        worker = WorkerProcess(mageflow_engine, SCRIPT, output=tmp_path / "worker.log", environment=environment)
        await worker.aio_start()
        try:
            task = mageflow_engine.client().stubs.task(name="exports", input_validator=dict, output_validator=dict)
            reference = await task.aio_run(input={}, wait_for_result=False)
            await until(lambda: "BEGAN" in worker.output(), 30)
            os.kill(worker.pid, signal.SIGTERM)
            await until(lambda: worker.returncode is not None, 90)
            ended = time.time()
            assert await reference.aio_result() == {}
        finally:
            worker.kill()
    assert worker.returncode == 0, worker.output()
    [work_ended] = re.findall(r"ENDED ([\d.]+)", worker.output())
    assert ended - float(work_ended) < ENDS_SECONDS
