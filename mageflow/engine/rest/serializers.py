"""Runs and tasks as JSON. The SDK's REST models decide on the field names and on the required fields."""

from __future__ import annotations

import json
from datetime import datetime

from mageflow.engine.actions import payload
from mageflow.engine.formats import iso
from mageflow.engine.model import Run, Task, TaskEvent, TaskStatus
from mageflow.engine.rest.workflow_config import workflow_config
from mageflow.engine.values import Json, JsonObject

_NO_ID = "00000000-0000-0000-0000-000000000000"
NO_TIME = "0001-01-01T00:00:00Z"
_FAILURES = frozenset({"FAILED", "TIMED_OUT", "SCHEDULING_TIMED_OUT"})


def resource(resource_id: str, created_at: datetime, updated_at: datetime | None = None) -> JsonObject:
    """Return the ``metadata`` of a resource."""
    return {"id": resource_id, "createdAt": iso(created_at), "updatedAt": iso(updated_at or created_at)}


def without_nulls(document: JsonObject) -> JsonObject:
    """Return the document without None values. The SDK's models refuse null for bounded fields."""
    return {key: value for key, value in document.items() if value is not None}


def as_object(value: Json) -> JsonObject:
    """Return the value, or an empty object if it is not an object."""
    return value if isinstance(value, dict) else {}


def task_details(tenant_id: str, task: Task) -> JsonObject:
    """Return one task as the answer to a request for this task: with the definition of its workflow.

    As in Hatchet, only this document has the number of child runs, and its input is that of the run.
    """
    summary = task_summary(tenant_id, task)
    summary["input"] = task.run.input
    summary["numSpawnedChildren"] = len(task.children)
    summary["workflowConfig"] = workflow_config(task.run.version)
    return summary


def task_summary(tenant_id: str, task: Task) -> JsonObject:
    """Return one task as a part of the details of its run. Hatchet leaves out when it was created."""
    return without_nulls(
        {
            **_task(tenant_id, task),
            "createdAt": NO_TIME,
            "isDurable": task.definition.is_durable,
            "isEvicted": task.status is TaskStatus.EVICTED,
        }
    )


def task_row(tenant_id: str, task: Task, *, payloads: bool = True) -> JsonObject:
    """Return one task as a row of a list of tasks, or as a child in a row of runs."""
    return without_nulls(
        {
            **_task(tenant_id, task, payloads=payloads),
            "createdAt": iso(task.inserted_at),
            "isEvicted": True if task.status is TaskStatus.EVICTED else None,
            "workflowName": task.run.workflow.name,
            "idempotencyKey": task.run.idempotency_key,
        }
    )


def run_row(tenant_id: str, run: Run, *, payloads: bool = True) -> JsonObject:
    """Return one run as a row. A DAG has its tasks as children. The type is always ``DAG``, as in Hatchet."""
    first = run.first_task
    is_evicted = any(task.status is TaskStatus.EVICTED for task in run.tasks.values())
    retry_count = max(task.retry_count for task in run.tasks.values())
    return without_nulls(
        {
            "metadata": resource(run.id, run.created_at),
            "actionId": "",
            "additionalMetadata": run.metadata,
            "attempt": retry_count + 1,
            "children": [task_row(tenant_id, each, payloads=payloads) for each in listed_tasks(run)]
            if run.is_dag
            else None,
            "createdAt": iso(run.created_at),
            "displayName": display_name(run),
            "duration": _milliseconds(run.started_at, run.finished_at),
            "errorMessage": _run_error(run) if run.is_dag else _task_error(first),
            "finishedAt": _iso(run.finished_at),
            "input": run_input(run) if payloads else {},
            "numSpawnedChildren": 0,
            "output": run_output(run) if payloads else {},
            "retryCount": retry_count,
            "status": run.listed_status.public,
            "isEvicted": True if is_evicted else None,
            "startedAt": _iso(run.started_at),
            "stepId": _NO_ID if run.is_dag else first.definition.id,
            "taskExternalId": run.id,
            "taskId": 0 if run.is_dag else first.number,
            "taskInsertedAt": iso(run.created_at),
            "tenantId": tenant_id,
            "type": "DAG",
            "workflowId": run.workflow.id,
            "workflowName": run.workflow.name,
            "workflowRunExternalId": run.id,
            "workflowVersionId": run.version.id,
            "parentTaskExternalId": run.parent.task_id if run.parent else None,
            "idempotencyKey": run.idempotency_key,
        }
    )


def run_details(tenant_id: str, run: Run) -> JsonObject:
    """Return everything about one run. As in Hatchet, only a DAG has the events of its tasks in it."""
    tasks = listed_tasks(run)
    return {
        "run": without_nulls(
            {
                "metadata": resource(run.id, run.created_at),
                "status": run.listed_status.public,
                "startedAt": _iso(run.started_at),
                "finishedAt": _iso(run.finished_at),
                "duration": _milliseconds(run.started_at, run.finished_at),
                "tenantId": tenant_id,
                "additionalMetadata": run.metadata,
                "displayName": display_name(run),
                "workflowId": run.workflow.id,
                "output": run_output(run),
                "errorMessage": _run_error(run),
                "workflowVersionId": run.version.id,
                "input": run_input(run),
                "createdAt": iso(run.created_at),
                "parentTaskExternalId": run.parent.task_id if run.parent else None,
            }
        ),
        "taskEvents": task_events(*tasks, outputs=True) if run.is_dag else [],
        "shape": [
            {
                "taskExternalId": task.id,
                "stepId": task.definition.id,
                "childrenStepIds": [
                    other.definition.id for other in run.tasks.values() if task.name in other.definition.parents
                ],
                "taskName": task.name,
            }
            for task in run.tasks.values()
        ],
        "tasks": [task_summary(tenant_id, task) for task in tasks],
        "workflowConfig": workflow_config(run.version),
    }


def run_input(run: Run) -> JsonObject:
    """Return the input of a run as REST shows it: of a run of one task, everything that the task is given."""
    return run.input if run.is_dag else _task_input(run.first_task)


def run_output(run: Run) -> JsonObject:
    """Return the output of a run as REST shows it: that of the task that finished last."""
    finished = [event for task in run.tasks.values() for event in task.events if event.type == "FINISHED"]
    last = max(finished, key=lambda event: event.id, default=None)
    return as_object(json.loads(last.output)) if last is not None and last.output else {}


def listed_tasks(run: Run) -> list[Task]:
    """Return the tasks that are listed, the newest first. A waiting on_failure task is not."""
    created = [task for task in run.tasks.values() if task.created]
    return sorted(created, key=lambda task: task.inserted_at, reverse=True)


def display_name(run: Run) -> str:
    """Return the name in REST: ``<workflow>-<milliseconds>``, or that of the task for a run of one task."""
    if not run.is_dag:
        return run.first_task.display_name
    return f"{run.workflow.name}-{int(run.created_at.timestamp() * 1000)}"


def task_events(*tasks: Task, outputs: bool = False) -> list[JsonObject]:
    """Return the history of tasks, newest first.

    Args:
        tasks: the tasks.
        outputs: whether every line has an output, which is empty unless the task finished.
    """
    events = [_event(task, event, outputs=outputs) for task in tasks for event in task.events]
    return sorted(events, key=lambda event: event["id"], reverse=True)


def _task(tenant_id: str, task: Task, *, payloads: bool = True) -> JsonObject:
    """Return the fields that every form of a task has."""
    run = task.run
    return {
        "metadata": resource(task.id, task.inserted_at),
        "actionId": task.definition.action,
        "retryCount": task.retry_count,
        "attempt": task.retry_count + 1,
        "additionalMetadata": run.metadata,
        "displayName": task.display_name,
        "duration": _milliseconds(task.started_at, task.finished_at),
        "errorMessage": _task_error(task),
        "finishedAt": _iso(task.finished_at),
        "input": _task_input(task) if payloads else {},
        "numSpawnedChildren": 0,
        "output": as_object(task.output) if payloads and not task.skipped else {},
        "status": task.listed_status.public,
        "startedAt": _iso(task.started_at),
        "stepId": task.definition.id,
        "taskExternalId": task.id,
        "taskId": task.number,
        "taskInsertedAt": iso(task.inserted_at),
        "tenantId": tenant_id,
        "type": "TASK",
        "workflowId": run.workflow.id,
        "workflowRunExternalId": run.id,
        "workflowVersionId": run.version.id,
        "parentTaskExternalId": run.parent.task_id if run.parent else None,
    }


def _task_input(task: Task) -> JsonObject:
    """Return what the task is given. One that never was queued is given nothing."""
    return {} if task.queued_at is None else payload(task, direct_parents_only=True)


def _task_error(task: Task) -> str:
    """Return how the latest attempt failed. After a timeout it is empty: Hatchet writes that text as a message."""
    return _latest_error([event for event in task.events if event.retry_count == task.retry_count])


def _run_error(run: Run) -> str:
    """Return how the latest of all failed attempts failed, also if a later attempt succeeded."""
    return _latest_error([event for task in run.tasks.values() for event in task.events])


def _latest_error(events: list[TaskEvent]) -> str:
    failures = [event for event in events if event.type in _FAILURES]
    latest = max(failures, key=lambda event: event.retry_count, default=None)
    return "" if latest is None else latest.error or ""


def _event(task: Task, event: TaskEvent, *, outputs: bool) -> JsonObject:
    return without_nulls(
        {
            "id": event.id,
            "taskId": task.id,
            "timestamp": iso(event.timestamp),
            "eventType": event.type,
            "message": event.message,
            "errorMessage": event.error or "",
            "output": event.output if outputs else None,
            "workerId": event.worker_id,
            "taskDisplayName": task.display_name,
            "retryCount": event.retry_count,
            "attempt": event.retry_count + 1,
        }
    )


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else iso(moment)


def _milliseconds(start: datetime | None, end: datetime | None) -> int | None:
    return None if start is None or end is None else int((end - start).total_seconds() * 1000)
