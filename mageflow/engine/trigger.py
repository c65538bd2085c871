"""What starts a run: the request, and the attempt it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mageflow.engine.contracts import trigger_pb2
    from mageflow.engine.model import JsonObject


@dataclass(slots=True, kw_only=True)
class Trigger:
    """A request to start a run of a workflow.

    ``parent_task_id`` with ``child_key`` or ``child_index`` names a child: the same child of the same parent is
    started once, whatever the attempt.
    """

    name: str
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
        default_factory=dict[str, "trigger_pb2.DesiredWorkerLabels"]
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """What a child knows of the attempt that spawned it. Not the task itself, which may be forgotten before the child.

    Attributes:
        told_as: what the child's worker is told is its parent: the task of a DAG, the run of any other.
    """

    task_id: str
    run_id: str
    told_as: str
    retry_count: int
