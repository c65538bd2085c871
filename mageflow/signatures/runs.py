"""The runs behind a signature: which run is meant, which was the last, and what the status was over time. Pure."""

from pydantic import AwareDatetime, BaseModel, ConfigDict

from mageflow._frozen import frozen
from mageflow.signatures.states import Status

__all__ = ["HistoryEntry", "LastRun", "RunIdentity"]


@frozen
class RunIdentity:
    """Identifies one attempt of one run in Hatchet. Admission and settlement are idempotent over it.

    Attributes:
        workflow_run_id: Hatchet's id of the run; the same over retries and reassignment.
        task_run_id: Hatchet's id of the task within the run.
        worker_id: The worker that runs it.
        attempt_number: From 1, one more than Hatchet's retry count; grows on retry and on reassignment.
        dedupe_key: The key the run was dispatched with (`DispatchRun.dedupe_key`); empty if it was dispatched without
            one. Then its own id takes the place of the key.
        traceparent: Context of the span the run is traced under; the next step of a flow links to it.
    """

    workflow_run_id: str
    task_run_id: str = ""
    worker_id: str = ""
    attempt_number: int = 1
    dedupe_key: str = ""
    traceparent: str = ""


class LastRun(BaseModel):
    """The last run of a signature; its ids find the run in Hatchet and in the logs.

    Attributes:
        workflow_run_id: Hatchet's id of the run.
        task_run_id: Hatchet's id of the task within the run.
        worker_id: The worker that ran it.
    """

    model_config = ConfigDict(frozen=True)

    workflow_run_id: str
    task_run_id: str = ""
    worker_id: str = ""


class HistoryEntry(BaseModel):
    """One change of status.

    Attributes:
        at: When, by the clock of Redis, in UTC.
        status: The status from then on.
        by: Who changed it, as given to ``suspend``, ``resume`` or ``interrupt``; else empty.
        why: The reason, as given; for a run that was sent again, what happened to the one before.
    """

    model_config = ConfigDict(frozen=True)

    at: AwareDatetime
    status: Status
    by: str = ""
    why: str = ""
