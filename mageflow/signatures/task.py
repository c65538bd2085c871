"""The signature of a task."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, PrivateAttr

from mageflow.signatures.runs import LastRun, RunIdentity
from mageflow.signatures.signature import Signature
from mageflow.signatures.states import Status

__all__ = ["TaskSignature"]


class TaskSignature(Signature):
    """A task with bound values, callbacks and its state.

    Create one with ``client.sign``. A task that is decorated with ``client.with_signature`` receives its own.

    Attributes:
        task_name: Declared name of the task.
        task_identifiers: The identifiers given to ``client.sign``. A plain run, which was not started from a stored
            signature, has ``workflow_run_id``, ``task_run_id``, ``worker_id`` and ``attempt_number`` instead.
        flow_key: Key of the chain or swarm it is a member or callback of; else empty.
    """

    kind: Literal["task"] = "task"
    task_name: str
    task_identifiers: dict[str, Any] = Field(default_factory=dict)
    flow_key: str = ""

    _origin: object = PrivateAttr(default=None)

    @property
    def origin(self) -> object:
        """The member specification it was created from; None in another process. Saves a round trip."""
        return self._origin

    def created_from(self, origin: object) -> Self:
        """The same signature, with its `origin`."""
        self._origin = origin
        return self

    @classmethod
    def from_run(
        cls, task_name: str, run: RunIdentity, *, identifiers: Mapping[str, Any] | None = None, traceparent: str = ""
    ) -> Self:
        """The signature of a plain run. It is not stored: `key` is empty, and the lifecycle methods raise.

        Args:
            task_name: Declared name of the task.
            run: The run; its ids become identifiers.
            identifiers: More identifiers.
            traceparent: Context of the run's span; ``run.traceparent`` by default.
        """
        ids = {
            "workflow_run_id": run.workflow_run_id,
            "task_run_id": run.task_run_id,
            "worker_id": run.worker_id,
            "attempt_number": run.attempt_number,
        }
        return cls(
            task_name=task_name,
            task_identifiers={**ids, **(identifiers or {})},
            status=Status.ACTIVE,
            attempts=run.attempt_number,
            last_run=LastRun(workflow_run_id=run.workflow_run_id, task_run_id=run.task_run_id, worker_id=run.worker_id),
            traceparent=traceparent or run.traceparent,
        )
