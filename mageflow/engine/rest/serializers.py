"""Runs and tasks as JSON. The SDK's REST models decide on the field names and on the required fields."""

from __future__ import annotations

from datetime import datetime

from mageflow.engine.actions import payload
from mageflow.engine.formats import iso
from mageflow.engine.model import Run, Task, TaskEvent, TaskStatus
from mageflow.engine.values import Json, JsonObject


def resource(resource_id: str, created_at: datetime, updated_at: datetime | None = None) -> JsonObject:
    """Return the ``metadata`` of a resource."""
    return {"id": resource_id, "createdAt": iso(created_at), "updatedAt": iso(updated_at or created_at)}


def without_nulls(document: JsonObject) -> JsonObject:
    """Return the document without None values. The SDK's models refuse null for bounded fields."""
    return {key: value for key, value in document.items() if value is not None}


def as_object(value: Json) -> JsonObject:
    """Return the value, or an empty object if it is not an object."""
    return value if isinstance(value, dict) else {}


def task_summary(tenant_id: str, task: Task, *, payloads: bool = True) -> JsonObject:
    """Return one task as a row."""
    run = task.run
    return without_nulls(
        {
            "metadata": resource(task.id, task.inserted_at, task.finished_at or task.started_at),
            "actionId": task.definition.action,
            "retryCount": task.retry_count,
            "attempt": task.retry_count + 1,
            "additionalMetadata": run.metadata,
            "createdAt": iso(task.inserted_at),
            "displayName": task.display_name,
            "duration": _milliseconds(task.started_at, task.finished_at),
            "isDurable": task.definition.is_durable,
            "errorMessage": task.error,
            "finishedAt": _iso(task.finished_at),
            "input": payload(task) if payloads else {},
            "numSpawnedChildren": len(task.children),
            "output": as_object(task.output) if payloads else {},
            "status": task.listed_status.public,
            "isEvicted": task.status is TaskStatus.EVICTED,
            "startedAt": _iso(task.started_at),
            "stepId": task.definition.id,
            "taskExternalId": task.id,
            "taskId": task.number,
            "taskInsertedAt": iso(task.inserted_at),
            "tenantId": tenant_id,
            "type": "TASK",
            "workflowId": run.workflow.id,
            "workflowName": run.workflow.name,
            "workflowRunExternalId": run.id,
            "workflowVersionId": run.version.id,
            "parentTaskExternalId": run.parent.task_id if run.parent else None,
            "idempotencyKey": run.idempotency_key,
        }
    )


def run_row(tenant_id: str, run: Run, *, payloads: bool = True) -> JsonObject:
    """Return one run as a row: its only task, or a row with children for a DAG."""
    if not run.is_dag:
        return task_summary(tenant_id, run.first_task, payloads=payloads)
    return without_nulls(
        {
            "metadata": resource(run.id, run.created_at, run.finished_at or run.started_at),
            "additionalMetadata": run.metadata,
            "children": [task_summary(tenant_id, task, payloads=payloads) for task in listed_tasks(run)],
            "createdAt": iso(run.created_at),
            "displayName": display_name(run),
            "duration": _milliseconds(run.started_at, run.finished_at),
            "errorMessage": run.error,
            "finishedAt": _iso(run.finished_at),
            "input": run.input if payloads else {},
            "numSpawnedChildren": sum(len(task.children) for task in run.tasks.values()),
            "output": run.output if payloads else {},
            "status": run.listed_status.public,
            "isEvicted": any(task.status is TaskStatus.EVICTED for task in run.tasks.values()),
            "startedAt": _iso(run.started_at),
            "taskExternalId": run.id,
            "taskId": run.first_task.number,
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
                "metadata": resource(run.id, run.created_at, run.finished_at or run.started_at),
                "status": run.listed_status.public,
                "startedAt": _iso(run.started_at),
                "finishedAt": _iso(run.finished_at),
                "duration": _milliseconds(run.started_at, run.finished_at),
                "tenantId": tenant_id,
                "additionalMetadata": run.metadata,
                "displayName": display_name(run),
                "workflowId": run.workflow.id,
                "output": run.output,
                "errorMessage": run.error,
                "workflowVersionId": run.version.id,
                "input": run.input,
                "createdAt": iso(run.created_at),
                "parentTaskExternalId": run.parent.task_id if run.parent else None,
            }
        ),
        "taskEvents": task_events(*tasks) if run.is_dag else [],
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
    }


def listed_tasks(run: Run) -> list[Task]:
    """Return the tasks that are listed. A waiting or skipped on_failure task is not."""
    return [task for task in run.tasks.values() if task.created]


def display_name(run: Run) -> str:
    """Return the name in REST: ``<workflow>-<milliseconds>``, or that of the task for a run of one task."""
    if not run.is_dag:
        return run.first_task.display_name
    return f"{run.workflow.name}-{int(run.created_at.timestamp() * 1000)}"


def task_events(*tasks: Task) -> list[JsonObject]:
    """Return the history of tasks, newest first."""
    events = [_event(task, event) for task in tasks for event in task.events]
    return sorted(events, key=lambda event: event["id"], reverse=True)


def _event(task: Task, event: TaskEvent) -> JsonObject:
    return without_nulls(
        {
            "id": event.id,
            "taskId": task.id,
            "timestamp": iso(event.timestamp),
            "eventType": event.type,
            "message": event.message,
            "errorMessage": event.error,
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
