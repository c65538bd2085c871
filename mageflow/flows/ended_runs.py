"""What Hatchet says of a run that no worker will settle, as the outcome of its attempt. Pure."""

from datetime import UTC, datetime

from pydantic import ValidationError

from mageflow.error_text import STORED_CHARACTERS, clipped
from mageflow.signatures import FailureRecord
from mageflow.store import AttemptOutcome
from mageflow.types import RunReport, SettledOutcome

__all__ = ["ended_run", "failure_of"]


def ended_run(
    run_id: str, report: RunReport, *, attempt_number: int = 0, stored_error_json: str = "", is_workflow: bool = False
) -> AttemptOutcome | None:
    """How a run has ended in Hatchet; None if it has not.

    Args:
        run_id: Hatchet's id of the run.
        report: What Hatchet says of it.
        attempt_number: The attempt that was admitted last; 0 if none was.
        stored_error_json: The error of its last failed attempt.
        is_workflow: Whether the run has several tasks: its result is the output of each by name.
    """
    if report.state in {"queued", "running"}:
        return None
    if report.state == "completed":
        output = report.outputs_json if is_workflow and report.outputs_json is not None else report.output_json
        return AttemptOutcome("succeeded", result_json=output or "null")
    if report.is_unscheduled:
        error = _unscheduled(run_id, attempt_number)
        return AttemptOutcome("unscheduled", error=error, input_json=report.input_json)
    outcome: SettledOutcome = "cancelled" if report.state == "cancelled" else "failed"
    if report.error_type == "TaskTimedOut":
        outcome = "timed_out"
    error = failure_of(run_id, report, outcome, attempt_number=attempt_number, stored_error_json=stored_error_json)
    return AttemptOutcome(outcome, error=error, input_json=report.input_json)


def failure_of(
    run_id: str, report: RunReport, outcome: SettledOutcome, *, attempt_number: int, stored_error_json: str
) -> FailureRecord:
    """The error of a run: the one that Hatchet has, or that of its last attempt, or ``WorkerLost``."""
    if not report.error_type and outcome == "failed":
        stored = _stored_failure(stored_error_json)
        if stored is not None:
            return stored.model_copy(update={"outcome": "failed"})
    words = f"the run {run_id} ended in Hatchet as {report.state}, and its worker did not report the end"
    return FailureRecord(
        type=report.error_type or ("TaskCancelled" if outcome == "cancelled" else "WorkerLost"),
        message=clipped(report.error, STORED_CHARACTERS) or ("" if report.error_type else words),
        task=report.task,
        attempt=max(attempt_number, 1),
        outcome=outcome,
        at=datetime.now(UTC),
    )


def _stored_failure(text: str) -> FailureRecord | None:
    try:
        return FailureRecord.model_validate_json(text) if text else None
    except ValidationError:
        return None


def _unscheduled(run_id: str, attempt_number: int) -> FailureRecord:
    return FailureRecord(
        type="TaskUnscheduled",
        message=f"no worker took the run {run_id} within its schedule timeout: start more workers or raise it",
        attempt=max(attempt_number, 1),
        outcome="cancelled",
        at=datetime.now(UTC),
    )
