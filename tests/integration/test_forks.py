"""Calls to Hatchet in a forked child: they work, or raise at once. gRPC alone would wait for ever."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from mageflow.testing.ports import free_port

SCRIPT = Path(__file__).with_name("fork_program.py")
OVER_GRPC = ("run", "no_wait", "aio_run", "many", "event", "aio_event", "made_in_child")
OTHERS = {"garbage": "ok", "sign": "ok", "chain": "ok"}  # a reconciler sends what the child could not
REFUSED = {**dict.fromkeys(OVER_GRPC, "ForkedProcessError"), **OTHERS}
# The SDK repeats the question for ten seconds after any error.
OF_RUN = {"result": "ValueError", "aio_result": "ForkedProcessError"}


async def run_program(case: str, **environment: str) -> dict[str, Any]:
    """What the child of a program meets. The program has made a call after that."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SCRIPT), case, env={**os.environ, **environment}, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(220):
        output, _ = await process.communicate()
    assert process.returncode == 0
    return json.loads(output)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("preload", {**dict.fromkeys(OVER_GRPC, "ok"), **OTHERS}),
        ("synchronous", {**REFUSED, **OF_RUN}),
        ("asynchronous", {**REFUSED, **OF_RUN}),
    ],
)
async def test_a_child_of_a_program(
    mageflow_worker: Any, mageflow_redis: Any, case: str, expected: dict[str, str]
) -> None:
    """A client that was made before the fork works if nothing was called; the parent goes on in any case."""
    environment = {"MAGEFLOW_REDIS_URL": mageflow_redis.url}
    mageflow_worker(SCRIPT, "worker", environment=environment)
    assert await run_program(case, **environment) == expected


@pytest.mark.slow
async def test_a_child_of_a_task(make_observed: Any, mageflow_worker: Any, mageflow_redis: Any) -> None:
    """The worker serves its metrics and ends its run afterwards."""
    environment = {"MAGEFLOW_REDIS_URL": mageflow_redis.url, "METRICS_PORT": str(free_port())}
    mageflow_worker(SCRIPT, "worker", environment=environment)
    task = make_observed().client.stubs.task(name="forked-parent", input_validator=dict, output_validator=dict)
    async with asyncio.timeout(220):
        result = await task.aio_run(input={"x": 1})
    assert result == {**REFUSED, "served": 200, "port": "ok"}


@pytest.mark.slow
@pytest.mark.parametrize("case", ["server", "server-used"])
async def test_a_preloading_server_ends_at_once(mageflow_engine: Any, mageflow_redis: Any, case: str) -> None:
    """No thread, connection or handler of a client holds the exit of the server or of its forked workers."""
    environment = {"MAGEFLOW_REDIS_URL": mageflow_redis.url, "GRPC_ENABLE_FORK_SUPPORT": "1"}
    server = await asyncio.create_subprocess_exec(
        sys.executable, str(SCRIPT), case, env={**os.environ, **environment}, stdout=asyncio.subprocess.PIPE
    )
    assert server.stdout is not None
    try:
        async with asyncio.timeout(100):
            assert [await server.stdout.readline() for _ in range(2)] == [b"served\n"] * 2
        server.terminate()
        async with asyncio.timeout(20):  # it takes 0.3 s
            rest = await server.stdout.read()
            assert (await server.wait(), rest) == (0, b"children ended 0 0\n")
    finally:
        if server.returncode is None:
            server.kill()
