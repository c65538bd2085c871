"""The messages a worker gets: start a task, cancel an attempt.

Unset protobuf strings arrive as ``""`` in the SDK, which has no presence checks; so optional fields stay unset rather
than carry a placeholder.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp

from mageflow.engine.contracts import dispatcher_pb2 as pb
from mageflow.engine.model import JsonObject, Task, TaskStatus

if TYPE_CHECKING:
    from mageflow.engine.core import Engine


def timestamp(moment: datetime) -> Timestamp:
    """Return a protobuf timestamp."""
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def payload(task: Task) -> JsonObject:
    """Return the action payload: input, outputs of finished tasks, matched condition data.

    Every completed task of the run is in ``parents``, grandparents too; values must be objects. ``triggered_by`` is
    "manual" for events, crons and schedules too, as Hatchet has it.
    """
    run = task.run
    parents = {
        name: other.output if isinstance(other.output, dict) else {}
        for name, other in run.tasks.items()
        if other.status is TaskStatus.COMPLETED and other is not task
    }
    document: JsonObject = {
        "input": run.input,
        "triggered_by": "manual",
        "parents": parents,
        "triggers": {"filter_payload": run.trigger.filter_payload, **task.match_data},
        "user_data": None,
        "overrides": None,
    }
    if task.step.is_on_failure:
        document["step_run_errors"] = {name: other.error for name, other in run.tasks.items() if other.error}
    return document


def start_action(engine: Engine, task: Task) -> pb.AssignedAction:
    """Return START_STEP_RUN for the task's current attempt."""
    action = _addressed(engine, task, pb.START_STEP_RUN)
    action.action_payload = json.dumps(payload(task))
    return action


def cancel_action(engine: Engine, task: Task) -> pb.AssignedAction:
    """Return CANCEL_STEP_RUN for the task's current attempt: the worker matches id, retry count and invocation."""
    return _addressed(engine, task, pb.CANCEL_STEP_RUN)


def _addressed(engine: Engine, task: Task, action_type: pb.ActionType) -> pb.AssignedAction:
    run = task.run
    action = pb.AssignedAction(
        tenant_id=engine.tenant_id,
        workflow_run_id=run.id,
        job_id=task.step.id,
        job_name=task.step.readable_id,
        job_run_id=task.id,
        task_id=task.step.id,
        task_run_external_id=task.id,
        action_id=task.step.action,
        action_type=action_type,
        task_name=task.step.readable_id,
        retry_count=task.retry_count,
        additional_metadata=json.dumps(task.metadata),
        priority=task.priority,
        workflow_id=run.workflow.id,
        workflow_version_id=run.version.id,
        task_inserted_at=timestamp(task.inserted_at),
    )
    trigger = run.trigger
    if run.parent is not None:
        action.parent_workflow_run_id = run.parent.told_as
        if trigger.child_index is not None:
            action.child_workflow_index = trigger.child_index
        if trigger.child_key:
            action.child_workflow_key = trigger.child_key
    if trigger.event_id:
        action.triggering_event_external_id = trigger.event_id
    if trigger.event_key:
        action.triggering_event_key = trigger.event_key
    if task.step.is_durable:
        action.durable_task_invocation_count = task.invocation
    return action
