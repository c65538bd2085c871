"""Trigger requests of the workflow service and of durable tasks."""

from __future__ import annotations

from mageflow.engine.contracts import trigger_pb2
from mageflow.engine.errors import InvalidRequestError
from mageflow.engine.parsing import check_id, parse_object
from mageflow.engine.trigger import Trigger


def trigger_from(request: trigger_pb2.TriggerWorkflowRequest) -> Trigger:
    """Return a trigger request as a record.

    Raises:
        InvalidRequestError: input or metadata is not a JSON object, the metadata is ``null``, or the id of the parent
            or of the desired worker is not a UUID.
    """
    if request.additional_metadata.strip() == "null":
        # Hatchet answers with an internal error, also where it takes null as input.
        raise InvalidRequestError("additional_metadata must be a JSON object, not null")
    if request.parent_task_run_external_id:
        check_id(request.parent_task_run_external_id, "parent_task_run_external_id")
    if request.desired_worker_id:
        check_id(request.desired_worker_id, "desired_worker_id")
    return Trigger(
        workflow_name=request.name,
        input=parse_object(request.input, "input"),
        metadata=parse_object(request.additional_metadata, "additional_metadata"),
        priority=request.priority if request.HasField("priority") else None,
        parent_task_id=request.parent_task_run_external_id or None,
        child_index=request.child_index if request.HasField("child_index") else None,
        child_key=request.child_key or None,
        desired_worker_id=request.desired_worker_id or None,
        desired_labels=request.desired_worker_labels,
    )
