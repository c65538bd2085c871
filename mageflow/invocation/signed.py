"""Runs that were started from a stored signature: admission before the body, settlement after it.

Each is one round trip to Redis. This module describes the attempt and its outcome; ``mageflow.flows`` decides what is
recorded and what follows.
"""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal

from mageflow import flows, store
from mageflow._frozen import frozen
from mageflow.error_text import STORED_CHARACTERS, text_of
from mageflow.errors import DuplicateRunError, MageflowError, SignatureError, StoreRefusedError, StoreUnavailableError
from mageflow.interceptors import Attempt, ExtendTimeout
from mageflow.metadata import KEY_DEDUPE, KEY_ENQUEUED_AT, of_program
from mageflow.signatures import FailureRecord, RunIdentity, RunOptions, TaskSignature
from mageflow.types import WorkflowPart

__all__ = ["Admitted", "Replay", "SignedRuns", "Skip"]

_log = logging.getLogger("mageflow")

_RESERVE_SECONDS = 1.0
"""How long before its timeout an attempt gives up waiting for Redis."""

_EXTENSION_SECONDS = 10.0
"""Length of one extension. The end of an outage is not known; a task keeps what it was granted in excess."""

_AHEAD_SECONDS = 3.0
"""How long before its timeout an attempt requests more time, if half of what is left is not less."""

_SETTLEMENT_WAIT_SECONDS = 1.0
"""How long the end of an attempt waits for Redis before it is recorded in the background.

Short, so that Hatchet learns the outcome soon: a worker that is killed before runs its task function again.
"""


@frozen
class Replay:
    """The step succeeded before: return its stored result and do not run the body."""

    result_json: str


@frozen
class Admitted:
    """The body runs, and its end is the end of its step."""

    signature: TaskSignature | None
    """None if the task function does not take it."""


class Skip(BaseException):
    """The signature does not admit this run: it was removed, suspended, or another run owns the step."""

    def __init__(self, status: str, *, is_overtaken: bool = False) -> None:
        self.status = status
        self.is_overtaken = is_overtaken
        """Whether a newer attempt of the same run owns the step."""
        super().__init__(status)


class SignedRuns:
    """Admits and settles the runs that carry a signature; each call is one round trip to Redis.

    Args:
        flows: Gives what admits and settles runs; it is called when a run has a signature.
        non_retryable: Turns an error into one after which the engine makes no further attempt.
        extend: Requests more execution time from Hatchet.
        max_extension_seconds: How much an attempt requests, at most, while it waits for Redis.
    """

    def __init__(
        self,
        flows: "Callable[[], flows.Flows]",
        non_retryable: Callable[[Exception], Exception],
        extend: ExtendTimeout,
        max_extension_seconds: float,
    ) -> None:
        self._flows_of_client = flows
        self._non_retryable = non_retryable
        self._extend = extend
        self._max_extension_seconds = max_extension_seconds

    @property
    def _flows(self) -> "flows.Flows":
        return self._flows_of_client()

    async def admit(
        self,
        attempt: Attempt,
        input_json: str,
        *,
        workflow: WorkflowPart = "",
        workflow_name: str = "",
        wants_signature: bool = True,
    ) -> Admitted | Replay | None:
        """Let this attempt own its step, and fill in its place in a flow. Atomic.

        While Redis is away or refuses, the attempt waits, and requests more time from Hatchet, ten seconds at a time
        and by at most ``Settings.redis_wait_extension_seconds``. It gives up one second before its timeout.

        Args:
            attempt: The attempt; its ``flow_*`` fields and ``max_attempts`` are updated.
            input_json: The run's input.
            workflow: Which part of a workflow of several tasks the task is.
            workflow_name: The workflow that runs, if it may be another than that of the task's declaration.
            wants_signature: Whether the task function takes the signature.

        Returns:
            The signature, now active; or a stored result to return instead of running the body. None if the workflow of
            the task has ended: what it does now is a part of no flow. None if the run
            has copied metadata, of a signature of another task or of another run: it is a plain run. Then the attempt
            has no signature and no flow.

        Raises:
            Skip: The run must not run.
            SignatureNotFoundError: The signature expired or was removed; Hatchet makes no further attempt.
            SignatureInvalidError: The stored document does not validate; Hatchet makes no further attempt.
            DuplicateRunError: The run has the metadata of the run that owns the step; Hatchet makes no further attempt.
            StoreUnavailableError: Redis was away or refused until the timeout; Hatchet may make another attempt.
            StoreRefusedError: Redis refuses for good; Hatchet makes no further attempt.
        """
        names = (attempt.task.workflow_name, attempt.task.name)
        if workflow_name and workflow_name != attempt.task.workflow_name:
            names = (workflow_name,)
        try:
            if attempt.has_copied_metadata:
                admission = self._flows.admissions.foreign(attempt.signature_key)
            else:
                request = store.AdmissionRequest(
                    attempt.signature_key,
                    self._identity(attempt),
                    input_json,
                    _options_json(attempt),
                    names,
                    workflow,
                    wants_signature,
                )
                admission = await self._admit_patiently(attempt, request)
        except (SignatureError, StoreRefusedError) as error:
            raise self._non_retryable(error) from error
        if admission.verdict == "foreign":
            attempt.signature_key = attempt.signature_id = ""
            attempt.flow_kind, attempt.flow_id, attempt.flow_name, attempt.flow_step = "", "", "", 0
            return None
        attempt.flow_kind, attempt.flow_id, attempt.flow_name = (
            admission.flow_kind or attempt.flow_kind,
            admission.flow_id or attempt.flow_id,
            admission.flow_name or attempt.flow_name,
        )
        attempt.flow_step, attempt.flow_steps = admission.step or attempt.flow_step, admission.steps
        if admission.verdict == "over":
            return None
        if admission.verdict == "replay":
            return Replay(admission.result_json or "{}")
        if admission.verdict == "twice":
            duplicate = DuplicateRunError(attempt.signature_key, admission.owner_run_id, attempt.workflow_run_id)
            raise self._non_retryable(duplicate)
        if admission.verdict != "run":
            is_overtaken = admission.status == "superseded" and admission.owner_run_id == attempt.workflow_run_id
            raise Skip(admission.status, is_overtaken=is_overtaken)
        # Hatchet repeats an attempt that was lost with its worker under the next number, and does not count it against
        # the retries (FailTaskInternalFailure), so the number of the last attempt is higher. If a failure did not reach
        # Redis, this number is one too high; then a reconciler settles the run after Hatchet has ended it.
        if not workflow:
            attempt.max_attempts += max(0, attempt.attempt_number - 1 - admission.failed_attempts)
        return Admitted(admission.signature)

    async def _admit_patiently(self, attempt: Attempt, request: "store.AdmissionRequest") -> "store.Admission":
        limit, granted = self._max_extension_seconds, 0.0
        while True:
            reserve = _RESERVE_SECONDS
            if granted < limit:
                reserve = max(reserve, min(_AHEAD_SECONDS, attempt.remaining_seconds / 2))
            try:
                return await self._flows.admissions.admit(
                    request, retry_seconds=max(0.0, attempt.remaining_seconds - reserve)
                )
            except StoreUnavailableError:
                if granted >= limit:
                    raise
            more = await self._extend(attempt, min(_EXTENSION_SECONDS, limit - granted), "redis")
            granted += more
            if more == 0.0:
                limit = granted  # refused: wait for what is left of the timeout

    def task_ended(self, attempt: Attempt) -> None:
        """Settle the run of a workflow in the background, if this attempt was its end. Does not raise."""
        self._flows.task_ended(attempt.signature_key, self._identity(attempt))

    async def succeed(self, attempt: Attempt, result_json: str) -> None:
        """Record the result and send what comes next. Atomic.

        Does not raise: the task function has succeeded, and Hatchet must learn that, or it runs again. While Redis is
        away or refuses, this waits for a second at most; then the result is recorded in the background. If this process
        ends before that, a reconciler takes the result from Hatchet.
        """
        try:
            await self._flows.settle_surely(
                attempt.signature_key,
                self._identity(attempt),
                store.AttemptOutcome("succeeded", result_json=result_json, stages_ms=_stages_ms(attempt)),
                wait_seconds=self._wait_seconds(attempt),
            )
        except MageflowError as failure:
            _log.error("the result of %s could not be recorded: %s", attempt.signature_key, failure)

    async def fail(self, attempt: Attempt, error: BaseException, input_json: str) -> bool:
        """Record a failure, a cancellation or a timeout, and send the callbacks it triggers. Atomic.

        Does not raise: the task's own exception must reach Hatchet. While Redis is away or refuses, this waits for a
        second at most; then the failure is recorded in the background. Fills in `Attempt.will_retry`.

        Returns:
            Whether Hatchet was asked how the attempt ended.
        """
        is_answered = False
        try:
            if attempt.outcome == "cancelled" and attempt.is_cancelled():
                await self._correct_timeout(attempt)
                is_answered = True
            outcome = attempt.outcome
            if outcome not in ("failed", "timed_out", "cancelled", "retried"):
                return is_answered
            ended = store.AttemptOutcome(
                outcome,
                error=_record(attempt, outcome, error),
                will_retry=attempt.will_retry,
                max_failures=attempt.task.retries + 1,
                input_json=input_json,
                stages_ms=_stages_ms(attempt),
            )
            settled = await self._flows.settle_surely(
                attempt.signature_key, self._identity(attempt), ended, wait_seconds=_SETTLEMENT_WAIT_SECONDS
            )
            if settled is not None:
                attempt.will_retry = attempt.will_retry and settled.verdict is not store.SettleVerdict.SETTLED
        except MageflowError as failure:
            _log.warning("the end of %s could not be recorded: %s", attempt.signature_key, failure)
        return is_answered

    async def _correct_timeout(self, attempt: Attempt) -> None:
        """Change the outcome to ``timed_out`` if Hatchet's record says that the cancellation was a timeout.

        Hatchet's clock starts at the assignment. If the event loop was blocked, the worker's clock starts late, and the
        cancel signal seems too early for a timeout. It matters: a cancellation ends a flow, a timeout may be retried.
        """
        if await self._flows.was_timed_out(self._identity(attempt)):
            attempt.corrections.append(("cancelled", "timed_out"))
            attempt.outcome = "timed_out"
            attempt.will_retry = attempt.attempt_number < attempt.max_attempts

    def _wait_seconds(self, attempt: Attempt) -> float:
        return max(0.0, min(_SETTLEMENT_WAIT_SECONDS, attempt.remaining_seconds - _RESERVE_SECONDS))

    def _identity(self, attempt: Attempt) -> RunIdentity:
        return RunIdentity(
            attempt.workflow_run_id,
            attempt.task_run_id,
            attempt.worker_id,
            attempt.attempt_number,
            str(attempt.metadata.get(KEY_DEDUPE) or ""),
            attempt.traceparent,
        )


def _stages_ms(attempt: Attempt) -> dict[str, int]:
    """Where the time of the attempt went, for people who look at its signature. Less than a millisecond is left out."""
    ms: dict[str, int] = {stage: round(s * 1000) for stage, s in attempt.stage_seconds.items() if s * 1000 >= 1}
    if attempt.attempt_number == 1 and not attempt.is_resumed:
        try:
            enqueued_at = float(str(attempt.metadata.get(KEY_ENQUEUED_AT) or ""))
        except ValueError:  # metadata can be forged
            return ms
        queued = min(time.time() - attempt.elapsed_seconds - enqueued_at, _LONGEST_QUEUE_SECONDS)
        if queued * 1000 >= 1:
            ms["queue"] = round(queued * 1000)
    return ms


_LONGEST_QUEUE_SECONDS = 365 * 24 * 3600.0
_HIGHEST_PRIORITY = 3
_NAMED = {"timed_out": "TaskTimedOut", "cancelled": "TaskCancelled"}


def _options_json(attempt: Attempt) -> str:
    """What the callbacks of this run are given; empty for nothing. The priority of the task itself is not handed on.

    Hatchet gives a retry a priority above all that a caller can give; the first attempt has stored what it was.
    """
    is_given = attempt.priority != attempt.task.default_priority and attempt.priority <= _HIGHEST_PRIORITY
    priority = attempt.priority if is_given else None
    metadata = of_program(attempt.metadata)
    return RunOptions(metadata=metadata, priority=priority).text() if metadata or priority is not None else ""


def _record(
    attempt: Attempt, outcome: Literal["failed", "timed_out", "cancelled", "retried"], error: BaseException
) -> FailureRecord:
    return FailureRecord(
        type=_NAMED.get(outcome) or type(error).__name__,
        message=text_of(error, STORED_CHARACTERS) if outcome not in _NAMED else "",
        task=attempt.task.name,
        attempt=attempt.attempt_number,
        outcome=outcome,
        at=datetime.now(UTC),
    )
