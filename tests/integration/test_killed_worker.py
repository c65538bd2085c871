"""A worker killed inside a staggered task: the run goes on elsewhere, and the endpoint comes back where it was."""

import asyncio
import json
from pathlib import Path

import pytest

from mageflow.engine import LocalEngine
from mageflow.testing.workers import WorkerProcess
from tests.integration.conftest import free_port, scrape, until

SCRIPT = Path(__file__).with_name("staggered_worker.py")


@pytest.mark.slow
async def test_a_run_survives_its_worker_and_metrics_stay_on_their_port(tmp_path):
    """SIGKILL in the sleep; the engine notices after five silent seconds, and the next worker runs the task."""
    port = free_port()
    discovery = tmp_path / "discovery"
    environment = {
        "MAGEFLOW_METRICS_PORT": str(port),
        "MAGEFLOW_METRICS_SD_DIR": str(discovery),
        "PYTHONPATH": str(SCRIPT.parents[2]),
    }
    with LocalEngine(worker_lost_after=5.0) as engine:
        client = engine.client()
        first = WorkerProcess(
            engine, SCRIPT, output=tmp_path / "first.log", environment={**environment, "STAGGER_SECONDS": "60"}
        )
        second = WorkerProcess(
            engine, SCRIPT, output=tmp_path / "second.log", environment={**environment, "STAGGER_SECONDS": "0.5"}
        )
        await first.aio_start()
        try:
            task = client.stubs.task(name="staggered-victim", input_validator=dict, output_validator=dict)
            reference = await task.aio_run(input={"x": 7}, wait_for_result=False)
            await until(lambda: scrape(port).total("mageflow_tasks_in_flight", phase="stagger") == 1)
            pid = first.pid
            first.kill()
            await second.aio_start()
            result = await asyncio.wait_for(reference.aio_result(), 30)
            assert result["x"] == 7
            assert result["pid"] != pid
            assert scrape(port).value("mageflow_staggers_total", task="staggered-victim", outcome="completed") == 1
            [entry] = discovery.glob("*.json")
            assert json.loads(entry.read_text())[0]["targets"] == [f"127.0.0.1:{port}"]
        finally:
            await second.aio_stop()
