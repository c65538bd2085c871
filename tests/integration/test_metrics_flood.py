"""Peers that flood the metrics port of a worker take no files from its tasks."""

import asyncio
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from mageflow.testing.ports import free_port
from tests.integration.conftest import scrape

SCRIPT = Path(__file__).with_name("narrow_worker.py")
PEERS = 600
"""More than twice as many as the worker may open files."""


async def slow_peer(port: int) -> None:
    """Sends one byte of a request at a time, and connects again when it was shut out."""
    while True:
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                while True:
                    writer.write(b"G")
                    await writer.drain()
                    await asyncio.sleep(1)
            finally:
                writer.close()
        await asyncio.sleep(0.2)


@pytest.mark.slow
@pytest.mark.timeout(200)
async def test_slow_peers_at_the_metrics_port_stop_no_task(
    make_observed: Any, mageflow_worker: Any, mageflow_redis: Any
) -> None:
    """A worker with 256 files: every run succeeds while 600 peers hold what they get, and metrics are served after."""
    port = free_port()
    environment = {"MAGEFLOW_REDIS_URL": mageflow_redis.url, "MAGEFLOW_METRICS_PORT": str(port)}
    mageflow_worker(SCRIPT, environment=environment)
    task = make_observed().client.stubs.task(name="pays", input_validator=dict, output_validator=dict)
    async with AsyncExitStack() as stack:
        peers = [asyncio.create_task(slow_peer(port)) for _ in range(PEERS)]
        stack.callback(lambda: [each.cancel() for each in peers])
        await asyncio.sleep(3)
        for _ in range(3):
            async with asyncio.timeout(50):
                found = await asyncio.gather(*(task.aio_run(input={"n": n}) for n in range(20)))
            assert found == [{"n": n} for n in range(20)]
    await asyncio.gather(*peers, return_exceptions=True)
    served = await asyncio.to_thread(scrape, port)
    assert served.value("mageflow_task_runs_total", task="pays", outcome="succeeded") == 60.0
    assert served.value("mageflow_telemetry_errors_total", signal="exposition") > 0.0
