"""The state of one attempt while it runs: what the runner, the body and the settlement share."""

import asyncio
from dataclasses import dataclass
from typing import Any, Self

from mageflow import store
from mageflow.interceptors import Attempt, TaskInfo
from mageflow.invocation.context import AttemptContext
from mageflow.metadata import KEY_FLOW, KEY_SIGNATURE, blank, is_copied
from mageflow.signatures import TaskSignature

__all__ = ["AttemptState"]


@dataclass(slots=True)
class AttemptState:
    """One attempt that runs now. It lives from the entry of `TaskRunner.around_attempt` to its exit."""

    attempt: Attempt
    context: AttemptContext
    inherited: dict[str, Any]
    """The metadata for runs spawned from the body: the attempt's own, without what is true of this run alone.

    The keys are blank, not absent: the engine too merges a parent's metadata into its children's.
    """
    cancelled_after: float | None = None
    """Seconds into the attempt at which the cancel signal arrived."""
    is_admitted: bool = False
    """Whether this is a run of a signature that may execute the body."""
    signature: TaskSignature | None = None
    """None for a plain run, and if the task function does not take it."""
    replay_json: str | None = None
    """The stored output to return instead of running the body."""
    result_json: str | None = None
    """The body's output, once there is one."""
    is_answered: bool = False
    """Whether Hatchet was asked already how the attempt ended, for its settlement."""
    member_errors: tuple[BaseException | None, ...] = ()
    """Why the worker reports a failure of each run of a batch; None for those that it reports as succeeded."""

    _cancelled: asyncio.Event | None = None

    @property
    def cancelled(self) -> asyncio.Event:
        """Set when the cancel signal arrives. Made when it is used: only a stagger waits for it."""
        if self._cancelled is None:
            self._cancelled = asyncio.Event()
        return self._cancelled

    @property
    def is_settled_here(self) -> bool:
        """Whether the end of this attempt is the end of its signature's run. A workflow has several tasks."""
        return self.is_admitted and not self.context.workflow_part

    @classmethod
    def open(cls, info: TaskInfo, context: AttemptContext) -> Self:
        """Start the clock of an attempt of this task."""
        metadata = context.metadata
        signature_key = str(metadata.get(KEY_SIGNATURE) or "")
        attempt = Attempt(
            task=info,
            workflow_run_id=context.workflow_run_id,
            task_run_id=context.task_run_id,
            worker_id=context.worker_id,
            attempt_number=context.attempt_number,
            max_attempts=context.max_attempts,
            metadata=metadata,
            is_cancelled=context.cancel_flag(),
            batch_size=context.batch_size,
            member_ids=context.member_ids,
            signature_key=signature_key,
            signature_id=store.signature_id_of(signature_key) if signature_key else "",
            has_copied_metadata=is_copied(metadata, context.parent_task_id),
            is_resumed=context.is_resumed,
            priority=context.priority,
        )
        _read_flow(attempt)
        return cls(attempt, context, blank(metadata))


def _read_flow(attempt: Attempt) -> None:
    """Read ``<kind>:<id>:<step> <name>`` from the run's metadata. Any other value is a program's own and is ignored."""
    text = str(attempt.metadata.get(KEY_FLOW) or "")
    if not text:
        return
    try:
        place = store.FlowPlace.parse(text)
    except ValueError:
        return
    if place.path.is_step_or_item and place.path.index is not None:
        attempt.flow_kind, attempt.flow_id, attempt.flow_step = place.kind, place.flow_id, place.path.index
        attempt.flow_name = place.name
