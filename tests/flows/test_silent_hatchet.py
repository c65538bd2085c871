"""A Hatchet that takes the runs of flows over an open connection and does not answer."""

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Event
from typing import Any

import grpc
import pytest
from hatchet_sdk.contracts.workflows_pb2 import BulkTriggerWorkflowRequest, BulkTriggerWorkflowResponse
from hatchet_sdk.contracts.workflows_pb2_grpc import (
    WorkflowServiceServicer,
    WorkflowServiceStub,
    add_WorkflowServiceServicer_to_server,
)

from mageflow import Settings
from mageflow.hatchet import enqueue
from mageflow.signatures import Status, SwarmConfig
from mageflow.types import DispatchRun
from tests.flows.test_workers import ended
from tests.integration.conftest import make_observed  # noqa: F401 - a fixture

QUICK = Settings(
    metrics_port=0, reconcile_grace_seconds=0.5, reconcile_check_seconds=2.0, reconcile_interval_seconds=0.2
)


class Silent(WorkflowServiceServicer):
    """Takes every call and answers none until the test is over."""

    def __init__(self) -> None:
        self.runs: list[int] = []
        self.is_over = Event()

    def BulkTriggerWorkflow(  # noqa: N802 - a name of the protocol
        self, request: BulkTriggerWorkflowRequest, context: grpc.ServicerContext
    ) -> BulkTriggerWorkflowResponse:
        self.runs.append(len(request.workflows))
        self.is_over.wait()
        return BulkTriggerWorkflowResponse()


@pytest.fixture
def silent() -> Iterator[tuple[Silent, WorkflowServiceStub]]:
    """Such a Hatchet, and a stub of gRPC that is connected to it."""
    service = Silent()
    server = grpc.server(ThreadPoolExecutor(8))
    add_WorkflowServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield service, WorkflowServiceStub(channel)
    service.is_over.set()
    server.stop(0).wait()


@pytest.fixture
def client(
    make_observed: Any,  # noqa: F811
    mageflow_redis: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Any]:
    """A client whose sends of flows end after half a second."""
    monkeypatch.setattr(enqueue, "_SEND_SECONDS", 0.5)
    yield make_observed(mageflow_redis.url, settings=QUICK).client
    assert mageflow_redis.keys_without_ttl() == []


async def test_a_step_ends_though_hatchet_does_not_take_the_next(
    client: Any,
    mageflow_worker: Any,
    silent: tuple[Silent, WorkflowServiceStub],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its attempt waited for the answer until its timeout. Now it completes, and a reconciler sends the next step."""
    service, stub = silent
    answering: list[Any] = []

    @client.task(name="first", execution_timeout=timedelta(minutes=2))
    async def first(msg: dict[str, Any]) -> dict[str, Any]:
        answering.append(client._client.admin.v0_client)
        client._client.admin.v0_client = stub
        return {"n": 1}

    @client.task(name="second")
    async def second(msg: dict[str, Any]) -> dict[str, Any]:
        return {"n": msg["mageflow_results"]["n"] + 1}

    mageflow_worker.in_process(client, "silent", workflows=[first, second])
    chain = await client.chain([first, second])
    await chain.aio_run_no_wait()
    run_id = (await ended(client, chain.steps[0])).last_run.workflow_run_id
    async with asyncio.timeout(60):
        while not (await client.runs.aio_get_details(run_id)).done:
            await asyncio.sleep(0.05)
    assert service.runs
    client._client.admin.v0_client = answering[0]
    assert (await ended(client, chain.key)).status is Status.DONE
    assert "are left to the reconcilers" in caplog.text
    assert "Hatchet has not taken it within 0.5 s" in caplog.text


async def test_no_further_part_of_a_decision_waits_for_a_silent_hatchet(
    client: Any, silent: tuple[Silent, WorkflowServiceStub]
) -> None:
    """A swarm of 2,500 items is sent in three calls; the first is not answered, and the start returns."""
    service, stub = silent
    client._client.admin.v0_client = stub
    swarm = await client.swarm(["item"] * 2500, config=SwarmConfig(max_concurrency=2500), closed=True)
    began = time.monotonic()
    async with asyncio.timeout(60):
        await swarm.aio_run_no_wait()
    took = time.monotonic() - began
    assert service.runs == [1000]
    print(f"\nthe start took {took:.2f} s")


async def test_the_threads_of_sends_are_free_again(client: Any, silent: tuple[Silent, WorkflowServiceStub]) -> None:
    """More sends than the pool has threads: each fails in time. They kept all threads, and no other call began."""
    _, stub = silent
    client._client.admin.v0_client = stub
    run = DispatchRun("item", "{}", f"mageflow:{{/0}}:task:{'0' * 32}", dedupe_key="x", source="chain")
    async with asyncio.timeout(60):
        results = await asyncio.gather(
            *(client._flows._dispatcher.dispatch([run]) for _ in range(40)), return_exceptions=True
        )
        assert await asyncio.to_thread(int, "7") == 7
    assert {getattr(each, "unanswered", each) for each in results} == {True}
