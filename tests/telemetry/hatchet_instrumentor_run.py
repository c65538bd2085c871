"""Run by ``test_instrumentor.py`` in a process of its own: Hatchet's real instrumentor cannot be taken off again.

Only the wire is missing: the instrumentor's own wrappers are called with functions that record what they are given.
Prints one JSON document.
"""

import asyncio
import base64
import json
import os
import sys
from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry


def _token() -> str:
    claims = {"sub": "tenant", "server_url": "http://127.0.0.1:1", "grpc_broadcast_address": "127.0.0.1:1"}
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({"alg": "none"}, claims)
    ]
    return ".".join([*parts, "signature"])


os.environ.update(HATCHET_CLIENT_TOKEN=_token(), HATCHET_CLIENT_TLS_STRATEGY="none")

from hatchet_sdk.opentelemetry.instrumentor import HatchetInstrumentor  # noqa: E402
from hatchet_sdk.runnables.action import Action, ActionPayload, ActionType  # noqa: E402
from hatchet_sdk.types.trigger import TriggerWorkflowOptions  # noqa: E402

from mageflow.config import Settings  # noqa: E402
from mageflow.hatchet.enqueue import enqueue_item  # noqa: E402
from mageflow.interceptors import Attempt, Enqueue, EnqueueItem, TaskDeclared, TaskInfo  # noqa: E402
from mageflow.metadata import stamp  # noqa: E402
from mageflow.telemetry import Telemetry, instrumentor  # noqa: E402
from mageflow.testing import capture_logs, capture_spans, samples  # noqa: E402
from mageflow.types import DispatchRun  # noqa: E402

FLOW = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER = "00-1af7651916cd43dd8448eb211c80319c-c7ad6b7169203331-01"
STEP = DispatchRun(
    "send", "{}", "mageflow:{/f}:chain:f#2", "dedupe", source="chain", flow="chain:f:2", traceparent=FLOW, link=OTHER
)
TASK = TaskInfo("send", "send", 30.0, 0)


def _action(metadata: dict[str, Any]) -> Action:
    return Action(
        tenant_id="tenant",
        worker_id="worker-1",
        workflow_run_id="run-1",
        job_id="job",
        job_name="job",
        job_run_id="job-run",
        step_id="step",
        step_run_id="step-1",
        action_id="send:send",
        action_payload=ActionPayload(),
        action_type=ActionType.START_STEP_RUN,
        retry_count=0,
        additional_metadata=metadata,
        child_workflow_index=None,
        child_workflow_key=None,
        parent_workflow_run_id=None,
        priority=1,
        workflow_version_id=None,
        workflow_id=None,
    )


class Run:
    """One client beside the instrumentor."""

    def __init__(self) -> None:
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.registry = CollectorRegistry()
        self.telemetry = Telemetry(Settings(), registry=self.registry, tracer_provider=self.provider)
        self.telemetry.interceptor.event(TaskDeclared(TASK))
        self.before = instrumentor.wraps_producer()
        self.hatchets = HatchetInstrumentor(tracer_provider=self.provider, enable_hatchet_otel_collector=False)
        self.hatchets.instrument()

    def send(self, item: EnqueueItem, **facts: Any) -> dict[str, Any]:
        """Enqueue as the client does: our call outside, the SDK's wrapped method inside."""
        sent: dict[str, Any] = {}

        def wire(name: str, payload: str, options: TriggerWorkflowOptions) -> str:
            sent.update(options.additional_metadata)
            return "run-1"

        with self.telemetry.interceptor.enqueue(Enqueue("run", [item], **facts)):
            if facts.get("is_durable_spawn"):
                sent.update(item.metadata)
            else:
                options = TriggerWorkflowOptions(additional_metadata=dict(item.metadata))
                self.hatchets._wrap_run_workflow(wire, None, ("send", "{}", options), {})
        return sent

    async def attempt(
        self, metadata: dict[str, Any], *, is_batch: bool = False, error: Exception | None = None
    ) -> None:
        """Take an attempt as the SDK's runner does."""
        from dataclasses import replace

        task = replace(TASK, is_batch=is_batch)
        attempt = Attempt(task, "run-1", "step-1", "worker-1", 1, 1, metadata, lambda: False)

        interceptor = self.telemetry.interceptor

        async def body(action: Action) -> Exception | None:
            try:
                with interceptor.attempt(attempt), interceptor.execute(attempt):
                    self.provider.get_tracer("user").start_span("query").end()
                    attempt.outcome = "timed_out" if error else "succeeded"
                    _raise(error)
            except Exception as raised:  # noqa: BLE001 - the SDK hands it on as a result
                return raised
            return None

        if is_batch:
            await body(_action(metadata))
        else:
            await self.hatchets._wrap_handle_start_step_run(body, None, (_action(metadata),), {})


def _raise(error: Exception | None) -> None:
    if error is not None:
        raise error


def main() -> None:
    """Print what was seen."""
    run = Run()
    said: dict[str, Any] = {"before": run.before, "after": instrumentor.wraps_producer()}
    with capture_spans(run.provider) as spans, capture_logs() as logs:
        said["sent"] = run.send(EnqueueItem("send", stamp({"user": "kept"}, source="direct")))
        said["flow"] = run.send(enqueue_item(STEP), source="chain")
        said["durable"] = run.send(enqueue_item(STEP), is_durable_spawn=True)
        said["producer_spans"] = spans.names
        said["flow_span_parent"] = f"{spans.spans[1].parent.span_id:016x}"
        spans.clear()

        asyncio.run(run.attempt(said["sent"]))
        asyncio.run(run.attempt(said["flow"], error=TimeoutError("late")))
        asyncio.run(run.attempt({"traceparent": FLOW, "mageflow_enqueued_at": "1.0", "mageflow_source": "schedule"}))
        asyncio.run(run.attempt(said["sent"], is_batch=True))
        said["spans"] = [
            {
                "name": span.name,
                "scope": span.instrumentation_scope.name,
                "parent": f"{span.parent.span_id:016x}" if span.parent else None,
                "id": f"{span.context.span_id:016x}",
                "trace": f"{span.context.trace_id:032x}",
                "status": span.status.status_code.name,
                "attributes": dict(span.attributes or {}),
                "links": [f"{link.context.span_id:016x}" for link in span.links],
            }
            for span in spans
        ]
        said["warned"] = logs.named("mageflow.privacy.hatchet_payload_exported")
        said["started"] = logs.named("mageflow.task.started")
    said["errors"] = samples(run.registry).total("mageflow_telemetry_errors_total")
    said["runs"] = samples(run.registry).total("mageflow_task_runs_total")
    json.dump(said, sys.stdout, default=str)


if __name__ == "__main__":
    main()
