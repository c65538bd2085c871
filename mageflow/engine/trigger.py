"""A request to start a run, and the parent of a child run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mageflow.engine.contracts import trigger_pb2
from mageflow.engine.values import JsonObject


@dataclass(slots=True, kw_only=True)
class Trigger:
    """A request to start a run of a workflow.

    ``parent_task_id`` with ``child_key`` or ``child_index`` identifies a child: every attempt of the parent that sends
    the same child gets the same run.

    Attributes:
        workflow_name: name of the workflow, with its namespace.
        priority: 1 to 3; None leaves it to the workflow.
        filter_payload: payload of the event filter that let the event start this run.
        desired_worker_id: the worker that must take the run.
        desired_labels: worker labels that replace those of the task's definition.
    """

    workflow_name: str
    input: JsonObject = field(default_factory=dict[str, Any])
    metadata: JsonObject = field(default_factory=dict[str, Any])
    priority: int | None = None
    parent_task_id: str | None = None
    child_index: int | None = None
    child_key: str | None = None
    event_id: str | None = None
    event_key: str | None = None
    filter_payload: JsonObject | None = None
    desired_worker_id: str | None = None
    desired_labels: Mapping[str, trigger_pb2.DesiredWorkerLabels] = field(
        default_factory=dict[str, trigger_pb2.DesiredWorkerLabels]
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """The attempt that started a child run. A value, not the task itself: the parent may be forgotten first.

    Attributes:
        wire_id: the parent's id in messages to the child's worker: the task's id in a DAG, else the run's id.
    """

    task_id: str
    run_id: str
    wire_id: str
    retry_count: int
