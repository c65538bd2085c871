"""How flows reach Hatchet, and what a client knows of its tasks: the `Dispatcher` and `TaskCatalog` ports."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, Literal

import grpc
from hatchet_sdk.clients.admin import RunStatus
from hatchet_sdk.contracts.v1.workflows_pb2 import GetRunDetailsResponse, TaskRunDetail
from hatchet_sdk.features.runs import BulkCancelReplayOpts, RunsClient
from hatchet_sdk.features.scheduled import ScheduledClient
from hatchet_sdk.runnables.task import Task
from hatchet_sdk.runnables.workflow import BaseWorkflow
from typing_extensions import override

from mageflow.errors import FlowDefinitionError, MessageTooLargeError
from mageflow.hatchet import compat, declaration_compat
from mageflow.hatchet.enqueue import ObservedAdminClient, enqueue_item
from mageflow.hatchet.errors_map import (
    as_dispatch_error,
    describe,
    is_too_large,
    raised_error,
)
from mageflow.hatchet.register import TaskRegister
from mageflow.hatchet.rest_limit import bounded
from mageflow.hatchet.run_events import is_unscheduled, origin_of, was_replayed, was_timed_out
from mageflow.hatchet.scheduled_runs import delete_scheduled_runs
from mageflow.hatchet.sdk_names import TriggerWorkflowOptions, WorkflowRunTriggerConfig
from mageflow.interceptors import Enqueue
from mageflow.signatures import unpack_result
from mageflow.types import Dispatcher, DispatchRun, RunOrigin, RunReport, TaskCatalog

__all__ = ["SdkCatalog", "SdkDispatcher"]

_LOOKS_AT_ONCE: Final = 8
"""Each takes a thread of the pool that also sends the runs of tasks."""

_State = Literal["queued", "running", "completed", "failed", "cancelled"]

_STATES: dict[RunStatus, _State] = {
    RunStatus.QUEUED: "queued",
    RunStatus.RUNNING: "running",
    RunStatus.COMPLETED: "completed",
    RunStatus.FAILED: "failed",
    RunStatus.CANCELLED: "cancelled",
}


class SdkDispatcher(Dispatcher):
    """Sends runs through the SDK's admin client and reads their state over gRPC and REST.

    Args:
        admin: Sends runs, with their enqueue observed.
        runs: Cancels runs and reads their events.
        scheduled: Deletes scheduled runs.
        register: Knows the default metadata of the tasks that this process declared.
    """

    def __init__(
        self, admin: ObservedAdminClient, runs: RunsClient, scheduled: ScheduledClient, register: TaskRegister
    ) -> None:
        self._admin = admin
        self._runs = bounded(runs)
        self._scheduled = bounded(scheduled)
        self._register = register

    @override
    async def dispatch(self, runs: Sequence[DispatchRun]) -> Sequence[str]:
        if not runs:
            return []
        # The SDK repeats a call for seconds that its own channel has refused to send.
        size_bytes = sum(len(each.input_json.encode()) for each in runs)
        if size_bytes > self._admin.config.grpc_max_send_message_length:
            raise _too_large(runs, f"{size_bytes} bytes in one call")
        items = [enqueue_item(each, default_metadata=self._register.default_metadata(each.task_name)) for each in runs]
        call = Enqueue("run" if len(runs) == 1 else "run_many", items, runs[0].source)
        configs = [
            WorkflowRunTriggerConfig(
                workflow_name=each.task_name,
                input=each.input_json,
                options=TriggerWorkflowOptions(priority=each.priority),
            )
            for each in runs
        ]
        with as_dispatch_error(runs[0].task_name), compat.outside_of_task():
            try:
                return await self._admin.dispatch(call, configs)
            except grpc.RpcError as error:
                if is_too_large(error):
                    raise _too_large(runs, describe(error)) from error
                raise

    @override
    async def cancel(self, run_ids: Sequence[str]) -> None:
        if run_ids:
            with as_dispatch_error("cancel"):
                await self._runs.aio_bulk_cancel(BulkCancelReplayOpts(ids=list(run_ids)))

    @override
    async def delete_scheduled(self, key: str) -> None:
        await delete_scheduled_runs(self._scheduled, key)

    @override
    async def statuses(self, run_ids: Sequence[str]) -> Mapping[str, RunReport]:
        places = asyncio.Semaphore(_LOOKS_AT_ONCE)

        async def look(run_id: str) -> RunReport | None:
            async with places:
                return await self._status(run_id)

        found = await asyncio.gather(*(look(each) for each in run_ids))
        return {run_id: report for run_id, report in zip(run_ids, found, strict=True) if report is not None}

    @override
    async def was_replayed(self, run_id: str, attempt_number: int) -> bool:
        with as_dispatch_error(run_id):
            return await was_replayed(self._runs, run_id, attempt_number)

    @override
    async def was_timed_out(self, run_id: str, attempt_number: int) -> bool:
        with as_dispatch_error(run_id):
            return await was_timed_out(self._runs, run_id, attempt_number)

    @override
    async def origin(self, run_id: str) -> RunOrigin | None:
        with as_dispatch_error(run_id):
            return await asyncio.to_thread(origin_of, self._runs, run_id)

    async def _status(self, run_id: str) -> RunReport | None:
        with as_dispatch_error(run_id):
            details = await asyncio.to_thread(compat.run_details, self._admin, run_id)
            if details is None:
                return None
            report = _report(details)
            if report.state == "cancelled":
                return replace(report, is_unscheduled=await is_unscheduled(self._runs, run_id))
        return report


def _too_large(runs: Sequence[DispatchRun], reason: str) -> MessageTooLargeError:
    largest = max(runs, key=lambda each: len(each.input_json))
    return MessageTooLargeError(largest.task_name, reason, len(largest.input_json.encode()))


def _report(details: GetRunDetailsResponse) -> RunReport:
    state = _STATES[RunStatus.from_proto(details.status)]
    tasks = list(details.task_runs.values())
    if len(tasks) > 1 and not details.done and state != "queued":
        return RunReport("running")  # one task has failed, and others still run
    if state == "completed":
        outputs = _outputs_json(tasks)
        output = _result_json(tasks[0].output.decode() or "{}") if len(tasks) == 1 else outputs
        return RunReport("completed", output_json=output, outputs_json=outputs)
    failed = sorted((each for each in tasks if each.error), key=_has_not_failed)
    kind, error = raised_error(failed[0].error if failed else "")
    return RunReport(
        state,
        error_type=kind,
        error=error,
        input_json=details.input.decode(),
        task=failed[0].readable_id if failed and len(tasks) > 1 else "",
    )


def _has_not_failed(task: TaskRunDetail) -> bool:
    """False for a task that failed: tasks that were cancelled because of it may have an error too."""
    return RunStatus.from_proto(task.status) is not RunStatus.FAILED


def _outputs_json(tasks: Sequence[TaskRunDetail]) -> str:
    """The output of each task by its name. As in a result of the SDK, a task without an output is left out."""
    texts = {each.readable_id: each.output.decode() for each in tasks}
    return json.dumps({name: json.loads(text) for name, text in texts.items() if text not in ("", "null")})


def _result_json(output_json: str) -> str:
    output = json.loads(output_json)
    result = unpack_result(output)
    return output_json if result is output else json.dumps(result)


class SdkCatalog(TaskCatalog):
    """The tasks in the register of one client."""

    def __init__(self, register: TaskRegister) -> None:
        self._register = register

    @override
    def task_name(self, task: object) -> str | None:
        if isinstance(task, Task):
            declared = self._register.find_task(task)
            return None if declared is None else self.task_name(declared.runnable)
        if isinstance(task, str):
            declared = self._register.find_workflow(task)
            return None if declared is None else self.task_name(declared.runnable)
        if not isinstance(task, BaseWorkflow):
            return None
        name = declaration_compat.config_of(task).name
        tasks = task.tasks
        if not tasks:
            raise FlowDefinitionError(f"the workflow {name!r} has no task")
        if any(declaration_compat.is_batch(each) for each in tasks):
            raise FlowDefinitionError(f"{name!r} is or has a batch task: sign the tasks that feed it")
        return name

    @override
    def input_model(self, name: str) -> object | None:
        declared = self._register.find_workflow(name)
        return None if declared is None else declared.runnable.input_validator_type
