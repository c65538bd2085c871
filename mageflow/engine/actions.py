"""The messages that a worker receives: start a task, start a batch, cancel an attempt.

The SDK does not check whether a protobuf string is set: it reads an unset one as ``""``. Optional fields therefore stay
unset instead of carrying a placeholder.
"""

from __future__ import annotations

import json

from mageflow.engine.contracts import dispatcher_pb2 as pb
from mageflow.engine.formats import timestamp
from mageflow.engine.model import Batch, Task, TaskStatus
from mageflow.engine.values import JsonObject


def payload(task: Task, *, direct_parents_only: bool = False) -> JsonObject:
    """Return the payload of a task's action: its input, the outputs of finished tasks, the data of its conditions.

    ``parents`` holds every completed task of the run, not only direct parents, and every value in it is an object.
    ``triggered_by`` is always "manual", also for events, crons and schedules, as in Hatchet.

    Args:
        task: the task.
        direct_parents_only: leave out the outputs of other tasks than its parents. Hatchet shows this in REST.
    """
    run = task.run
    parents = {
        name: other.output if isinstance(other.output, dict) else {}
        for name, other in run.tasks.items()
        if other.status is TaskStatus.COMPLETED
        and other is not task
        and (name in task.definition.parents or not direct_parents_only)
    }
    document: JsonObject = {
        "input": run.input,
        "triggered_by": "manual",
        "parents": parents,
        "triggers": {"filter_payload": run.trigger.filter_payload, **task.condition_data},
        "user_data": None,
        "overrides": None,
    }
    if task.definition.is_on_failure:
        document["step_run_errors"] = {name: other.error for name, other in run.tasks.items() if other.error}
    return document


class Actions:
    """Builds the messages.

    Args:
        tenant_id: the id of the one tenant, which every message carries.
    """

    def __init__(self, tenant_id: str) -> None:
        self._tenant_id = tenant_id

    def start(self, task: Task) -> pb.AssignedAction:
        """Return START_STEP_RUN for the task's current attempt."""
        action = self._for_attempt(task, pb.START_STEP_RUN)
        action.action_payload = json.dumps(payload(task))
        return action

    def cancel(self, task: Task) -> pb.AssignedAction:
        """Return CANCEL_STEP_RUN for the task's current attempt. The worker compares id, retry count and invocation."""
        return self._for_attempt(task, pb.CANCEL_STEP_RUN)

    def start_batch(self, batch: Batch) -> pb.AssignedAction:
        """Return START_BATCH for a flushed batch."""
        run, definition = next(iter(batch.items.values())).run, batch.definition
        # The items were serialised when they were collected.
        items = ", ".join(f"{json.dumps(task_id)}: {batch.payloads[task_id]}" for task_id in batch.items)
        return pb.AssignedAction(
            tenant_id=self._tenant_id,
            job_id=definition.id,
            job_name=definition.name,
            task_id=definition.id,
            task_name=definition.name,
            action_id=definition.action,
            action_type=pb.START_BATCH,
            action_payload="{" + items + "}",
            retry_count=0,
            workflow_id=run.workflow.id,
            workflow_version_id=run.version.id,
            batchId=batch.id,
            batchKey=batch.key[-1],
            batchSize=len(batch.items),
            batchStartPayload=pb.BatchStartPayload(
                triggerReason=batch.reason,
                triggerTime=None if batch.flushed_at is None else timestamp(batch.flushed_at),
                expectedSize=len(batch.items),
            ),
        )

    def _for_attempt(self, task: Task, action_type: pb.ActionType) -> pb.AssignedAction:
        run, trigger, definition = task.run, task.run.trigger, task.definition
        action = pb.AssignedAction(
            tenant_id=self._tenant_id,
            workflow_run_id=run.id,
            job_id=definition.id,
            job_name=definition.name,
            job_run_id=task.id,
            task_id=definition.id,
            task_run_external_id=task.id,
            action_id=definition.action,
            action_type=action_type,
            task_name=definition.name,
            retry_count=task.retry_count,
            additional_metadata=json.dumps(run.metadata),
            priority=task.priority,
            workflow_id=run.workflow.id,
            workflow_version_id=run.version.id,
            task_inserted_at=timestamp(task.inserted_at),
        )
        if run.parent is not None:
            action.parent_workflow_run_id = run.parent.wire_id
            if trigger.child_index is not None:
                action.child_workflow_index = trigger.child_index
            if trigger.child_key:
                action.child_workflow_key = trigger.child_key
        if trigger.event_id:
            action.triggering_event_external_id = trigger.event_id
        if trigger.event_key:
            action.triggering_event_key = trigger.event_key
        if definition.is_durable:
            action.durable_task_invocation_count = task.invocation
        return action
