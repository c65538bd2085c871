"""The long run: 100,000 runs in ten minutes beside an idle connection. By hand: ``pytest -m soak tests/engine``.

``ENGINE_SOAK_RUNS`` and ``ENGINE_SOAK_SECONDS`` shorten it; the proportions stay.
"""

import asyncio
import json
import os
import time
from pathlib import Path

import aiohttp
import grpc
import pytest

from mageflow.engine import LocalEngine
from mageflow.engine.contracts import dispatcher_pb2 as pb
from mageflow.engine.contracts import workflows_pb2 as workflows
from tests.engine.raw_client import ManualWorker, RawClient, task, unique

RUNS = int(os.environ.get("ENGINE_SOAK_RUNS", "100000"))
SECONDS = float(os.environ.get("ENGINE_SOAK_SECONDS", "600"))
BATCH = 500
WARM_UP = 0.3
ALLOWED_GROWTH = 0.15


def resident_megabytes(pid: int) -> float:
    """Return the resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


async def work(worker: ManualWorker) -> None:
    """Complete every action, with a log-free minimum of calls, many at once."""

    async def finish(action: pb.AssignedAction) -> None:
        await worker.start(action)
        await worker.complete(action, {"n": json.loads(action.action_payload)["input"]["n"]})

    while True:
        actions = [await worker.actions.get()]
        while not worker.actions.empty() and len(actions) < 50:
            actions.append(worker.actions.get_nowait())
        await asyncio.gather(*(finish(each) for each in actions))


async def collect(client: RawClient, runs: list[str]) -> None:
    """Wait for the results of all runs on one stream; every run must answer once with its output."""

    async def ids():
        for run in runs:
            yield pb.SubscribeToWorkflowRunsRequest(workflow_run_id=run)
        await asyncio.Event().wait()

    call = client.bidirectional(
        "Dispatcher/SubscribeToWorkflowRuns", ids(), pb.SubscribeToWorkflowRunsRequest, pb.WorkflowRunEvent
    )
    open_runs = set(runs)
    while open_runs:
        event = await asyncio.wait_for(call.read(), 60)
        assert event.results[0].output, event
        open_runs.discard(event.workflow_run_id)
    call.cancel()


@pytest.mark.soak
@pytest.mark.timeout(SECONDS + 300)
async def test_many_runs_leave_no_trace_and_an_idle_connection_stays() -> None:
    """No lost run, no GOAWAY, and memory that stays flat after the warm-up."""
    async with LocalEngine(keep_finished=RUNS // 10) as engine, aiohttp.ClientSession() as http:
        options = [
            ("grpc.keepalive_time_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
        ]
        idle = grpc.aio.insecure_channel(engine.handshake.grpc_address, options=options)
        await idle.channel_ready()
        left = asyncio.ensure_future(idle.wait_for_state_change(idle.get_state()))
        client = RawClient(engine.handshake, http)
        name = unique("soak")
        await client.put(name, task("work", name))
        async with client.worker(f"{name}:work", slots={"default": 200}) as worker:
            working = asyncio.create_task(work(worker))
            started, done, memory = time.monotonic(), 0, list[float]()
            while done < RUNS:
                request_ = workflows.BulkTriggerWorkflowRequest(
                    workflows=[{"name": name, "input": json.dumps({"n": n})} for n in range(BATCH)]
                )
                reply = await client.call(
                    "WorkflowService/BulkTriggerWorkflow", request_, workflows.BulkTriggerWorkflowResponse
                )
                await collect(client, list(reply.workflow_run_ids))
                done += BATCH
                memory.append(resident_megabytes(engine.pid))
                assert not left.done(), "the idle connection was closed"
                assert not working.done(), "the worker ended"
                # Spread the runs over the whole time.
                await asyncio.sleep(max(0.0, done / RUNS * SECONDS - (time.monotonic() - started)))
            warm = memory[int(len(memory) * WARM_UP)]
            sizes = " -> ".join(f"{each:.0f}" for each in (memory[0], warm, memory[-1]))
            print(f"\n{done} runs in {time.monotonic() - started:.0f} s; start -> warm -> end: {sizes} MB")
            assert memory[-1] < warm * (1 + ALLOWED_GROWTH), memory
            working.cancel()
            left.cancel()
        await client.close()
        await idle.close()
