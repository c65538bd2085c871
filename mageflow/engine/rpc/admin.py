"""``v1.AdminService``: registration of workflows, triggers, details of runs, bulk requests."""

from __future__ import annotations

import json

from mageflow.engine.bulk import BulkRequests
from mageflow.engine.contracts import v1_workflows_pb2
from mageflow.engine.model import Run, Task, TaskStatus
from mageflow.engine.parsing import parse_object, utc_time
from mageflow.engine.registry import Registry
from mageflow.engine.replays import Replays
from mageflow.engine.repository import Repository
from mageflow.engine.rpc.table import Handler, unary
from mageflow.engine.run_filter import RunFilter
from mageflow.engine.runs import Runs
from mageflow.engine.trigger import Trigger


class RegistrationMethods:
    """Registers workflows.

    Args:
        registry: the registered workflows.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def table(self) -> dict[str, Handler]:
        """Return the methods by name."""
        return {"PutWorkflow": unary(v1_workflows_pb2.CreateWorkflowVersionRequest, self._put_workflow)}

    def _put_workflow(
        self, request: v1_workflows_pb2.CreateWorkflowVersionRequest
    ) -> v1_workflows_pb2.CreateWorkflowVersionResponse:
        version = self._registry.put(request)
        return v1_workflows_pb2.CreateWorkflowVersionResponse(id=version.id, workflow_id=version.workflow.id)


class RunMethods:
    """Starts, shows, cancels and replays runs.

    Args:
        repository: where runs and tasks are found.
        runs: starts runs.
        bulk: cancels and replays.
        replays: replays durable tasks from a node.
    """

    def __init__(self, repository: Repository, runs: Runs, bulk: BulkRequests, replays: Replays) -> None:
        self._repository = repository
        self._runs = runs
        self._bulk = bulk
        self._replays = replays

    def table(self) -> dict[str, Handler]:
        """Return the methods by name."""
        return {
            "GetRunDetails": unary(v1_workflows_pb2.GetRunDetailsRequest, self._run_details),
            "TriggerWorkflowRun": unary(v1_workflows_pb2.TriggerWorkflowRunRequest, self._trigger_run),
            "CancelTasks": unary(v1_workflows_pb2.CancelTasksRequest, self._cancel),
            "ReplayTasks": unary(v1_workflows_pb2.ReplayTasksRequest, self._replay),
            "BranchDurableTask": unary(v1_workflows_pb2.BranchDurableTaskRequest, self._branch),
        }

    def _run_details(self, request: v1_workflows_pb2.GetRunDetailsRequest) -> v1_workflows_pb2.GetRunDetailsResponse:
        run = self._repository.run(request.external_id)
        return v1_workflows_pb2.GetRunDetailsResponse(
            input=json.dumps(run.input).encode(),
            additional_metadata=json.dumps(run.metadata).encode(),
            status=run.status.public,
            done=run.done,
            is_evicted=_is_evicted(run),
            task_runs={name: _task_detail(task) for name, task in run.tasks.items() if task.created},
        )

    def _trigger_run(
        self, request: v1_workflows_pb2.TriggerWorkflowRunRequest
    ) -> v1_workflows_pb2.TriggerWorkflowRunResponse:
        run_id = self._runs.trigger(
            Trigger(
                workflow_name=request.workflow_name,
                input=parse_object(request.input, "input"),
                metadata=parse_object(request.additional_metadata, "additional_metadata"),
                priority=request.priority if request.HasField("priority") else None,
                desired_labels=request.desired_worker_labels,
            )
        )
        return v1_workflows_pb2.TriggerWorkflowRunResponse(external_id=run_id)

    def _cancel(self, request: v1_workflows_pb2.CancelTasksRequest) -> v1_workflows_pb2.CancelTasksResponse:
        done = self._bulk.cancel(self._chosen(request))
        return v1_workflows_pb2.CancelTasksResponse(cancelled_tasks=done)

    def _replay(self, request: v1_workflows_pb2.ReplayTasksRequest) -> v1_workflows_pb2.ReplayTasksResponse:
        done = self._bulk.replay(self._chosen(request))
        return v1_workflows_pb2.ReplayTasksResponse(replayed_tasks=done)

    def _branch(self, request: v1_workflows_pb2.BranchDurableTaskRequest) -> v1_workflows_pb2.BranchDurableTaskResponse:
        task = self._repository.task(request.task_external_id)
        branch_id = self._replays.replay_from(task, request.node_id, request.branch_id or None)
        return v1_workflows_pb2.BranchDurableTaskResponse(
            task_external_id=task.id, node_id=request.node_id, branch_id=branch_id
        )

    def _chosen(self, request: v1_workflows_pb2.CancelTasksRequest | v1_workflows_pb2.ReplayTasksRequest) -> list[str]:
        """Return the ids that a bulk request lists, or that its filter selects. Without either, there are none."""
        if request.external_ids or not request.HasField("filter"):
            return list(request.external_ids)
        wanted = request.filter
        pairs = (pair.partition(":") for pair in wanted.additional_metadata)
        chosen = RunFilter(
            since=utc_time(wanted.since, "since") if wanted.HasField("since") else None,
            until=utc_time(wanted.until, "until") if wanted.HasField("until") else None,
            statuses=frozenset(wanted.statuses),
            workflow_ids=frozenset(wanted.workflow_ids),
            metadata=tuple((key, value) for key, _, value in pairs),
        )
        return [run.id for run in self._repository.select(chosen)]


def _is_evicted(run: Run) -> bool:
    return any(task.status is TaskStatus.EVICTED for task in run.tasks.values())


def _task_detail(task: Task) -> v1_workflows_pb2.TaskRunDetail:
    detail = v1_workflows_pb2.TaskRunDetail(
        external_id=task.id,
        readable_id=task.name,
        status=task.status.public,
        is_evicted=task.status is TaskStatus.EVICTED,
    )
    if task.error:
        detail.error = task.error
    if task.status is TaskStatus.COMPLETED:
        detail.output = (task.output_text or "null").encode()
    return detail
