"""The log events of one attempt: of its start, and one for each way in which it ends."""

from collections.abc import Callable
from typing import Final

from mageflow.error_text import place_of, text_of
from mageflow.interceptors import Attempt
from mageflow.telemetry.live import LiveAttempt, run_seconds
from mageflow.telemetry.names import events
from mageflow.telemetry.recorder import Recorder
from mageflow.types import Outcome, Phase, Stage

__all__ = ["log_end", "log_start"]

_PHASE_OF: Final[dict[Stage, Phase]] = {"signature_load": "loading", "stagger": "stagger", "lock_wait": "lock_wait"}


def log_start(recorder: Recorder, live: LiveAttempt) -> None:
    """Log that an attempt has started."""
    if recorder.log.may_emit(events.TASK_STARTED):
        recorder.log.emit(events.TASK_STARTED, queue_wait_s=_rounded_wait(live))


def log_end(recorder: Recorder, live: LiveAttempt, outcome: Outcome | None, error: BaseException | None) -> None:
    """Log how an attempt has ended; nothing for one that was evicted, whose outcome is None."""
    if live.attempt.thread_running:
        recorder.log.emit(events.TASK_THREAD_ORPHANED, elapsed_s=_rounded(live.attempt.elapsed_seconds))
    if outcome is not None:
        _LOG_OF[outcome](recorder, live, error)


def _log_succeeded(recorder: Recorder, live: LiveAttempt, _error: BaseException | None) -> None:
    if recorder.log.may_emit(events.TASK_FINISHED):
        recorder.log.emit(
            events.TASK_FINISHED,
            "",
            live.trace_fields,
            outcome="succeeded",
            duration_s=_rounded(run_seconds(live.attempt)),
            queue_wait_s=_rounded_wait(live),
        )


def _log_failed(recorder: Recorder, live: LiveAttempt, error: BaseException | None) -> None:
    _log_failure(recorder, live, error, will_retry=live.attempt.will_retry)


def _log_retried(recorder: Recorder, live: LiveAttempt, error: BaseException | None) -> None:
    _log_failure(recorder, live, error, will_retry=True)


def _log_failure(recorder: Recorder, live: LiveAttempt, error: BaseException | None, *, will_retry: bool) -> None:
    recorder.log.emit(
        events.TASK_FAILED,
        "warning" if will_retry else "error",
        exception=type(error).__name__,
        duration_s=_rounded(run_seconds(live.attempt)),
        queue_wait_s=_rounded_wait(live),
        will_retry=will_retry,
        **_exception_fields(recorder, error),
    )


def _log_timed_out(recorder: Recorder, live: LiveAttempt, _error: BaseException | None) -> None:
    attempt = live.attempt
    recorder.log.emit(
        events.TASK_TIMED_OUT,
        timeout_s=attempt.task.execution_timeout_seconds,
        extended_s=_rounded(attempt.extended_seconds),
        elapsed_s=_rounded(attempt.elapsed_seconds),
        queue_wait_s=_rounded_wait(live),
        phase=_last_phase(attempt),
        will_retry=attempt.will_retry,
    )


def _log_cancelled(recorder: Recorder, live: LiveAttempt, _error: BaseException | None) -> None:
    recorder.log.emit(
        events.TASK_CANCELLED,
        phase=_last_phase(live.attempt),
        duration_s=_rounded(run_seconds(live.attempt)),
        queue_wait_s=_rounded_wait(live),
    )


def _log_skipped(recorder: Recorder, live: LiveAttempt, _error: BaseException | None) -> None:
    recorder.log.emit(events.TASK_SKIPPED, signature_status=live.attempt.skip_reason)


_LOG_OF: Final[dict[Outcome, Callable[[Recorder, LiveAttempt, BaseException | None], None]]] = {
    "succeeded": _log_succeeded,
    "failed": _log_failed,
    "retried": _log_retried,
    "timed_out": _log_timed_out,
    "cancelled": _log_cancelled,
    "skipped": _log_skipped,
}


def _exception_fields(recorder: Recorder, error: BaseException | None) -> dict[str, object]:
    if error is None:
        return {}
    detail = recorder.settings.exception_detail
    fields: dict[str, object] = {"raised_at": place} if (place := place_of(error)) else {}
    if detail != "type":
        fields["message"] = text_of(error)
    if detail == "full":
        fields["exc_info"] = error
    return fields


def _last_phase(attempt: Attempt) -> Phase:
    # "cancelling" is how the attempt ended, not where it was.
    return _PHASE_OF.get(attempt.stage, "running") if attempt.phase == "cancelling" else attempt.phase


def _rounded_wait(live: LiveAttempt) -> float | None:
    return None if live.queue_wait is None else _rounded(live.queue_wait)


def _rounded(seconds: float) -> float:
    return round(seconds, 6)
