"""What runs in this process now, and what ended lately: the report of ``/debug/runs``.

Metrics have no ids, and spans leave the process. This report has ids and times of single runs, for ``mageflow top``. It
has no payloads. It keeps a limited number of records, and each is a copy: a kept attempt would keep the frames of its
exception.
"""

import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

from opentelemetry.trace import Span, SpanContext

from mageflow._frozen import frozen
from mageflow.config import Settings
from mageflow.error_text import text_of
from mageflow.interceptors import Attempt, Deadlock, Stagger
from mageflow.telemetry.spans import hashed
from mageflow.types import Outcome, Phase

__all__ = ["KEPT_ATTEMPTS", "KEPT_DEADLOCKS", "RecentRuns", "StaggerNow", "describe_running"]

KEPT_ATTEMPTS = 500
KEPT_DEADLOCKS = 50
_MESSAGE_LENGTH = 500

_Facts = tuple[object, ...]
"""What is known of an attempt from its start: the values of `_OF_EACH`."""
_OF_EACH: Final = (
    "task", "run_id", "task_run_id", "attempt", "max_attempts", "worker", "trace_id",
    "flow", "flow_kind", "flow_id", "flow_step",
)  # fmt: skip
_ENDED: Final = (
    "queue_wait_s", "started_at", "elapsed_s", "stages", "outcome", "exception", "message", "will_retry",
)  # fmt: skip


@frozen
class StaggerNow:
    """A stagger that may still sleep."""

    call: Stagger
    since: float
    """A reading of the attempt's clock."""


class RecentRuns:
    """The last attempts that ended and the last deadlocks of one client. Any thread may read it."""

    def __init__(self, settings: Settings) -> None:
        self._has_messages = settings.exception_detail != "type"
        self._resource_detail: Literal["hash", "raw"] = settings.lock_resource_detail
        self._ended: deque[tuple[_Facts, tuple[object, ...]]] = deque(maxlen=KEPT_ATTEMPTS)
        self._deadlocks: deque[Mapping[str, object]] = deque(maxlen=KEPT_DEADLOCKS)

    def add(
        self,
        attempt: Attempt,
        span: Span,
        *,
        outcome: Outcome | None,
        error: BaseException | None,
        queue_wait: float | None,
        ended_at: float,
    ) -> None:
        """Keep the facts of an ended attempt. `report` puts them together: most are never read.

        Args:
            attempt: The attempt.
            span: Its span.
            outcome: How it ended.
            error: Why it failed.
            queue_wait: Seconds that its run waited for it; None for a retry.
            ended_at: Epoch seconds.
        """
        # The exception of a timeout is its cancellation, which says nothing.
        cause = error if outcome in ("failed", "retried") else None
        elapsed = attempt.elapsed_seconds
        self._ended.append(
            (
                _facts(attempt, span),
                (
                    queue_wait,
                    ended_at - elapsed,
                    elapsed,
                    dict(attempt.stage_seconds),
                    outcome,
                    "" if cause is None else type(cause).__name__,
                    text_of(cause)[:_MESSAGE_LENGTH] if self._has_messages and cause is not None else "",
                    attempt.will_retry or outcome == "retried",
                ),
            )
        )

    def add_deadlock(self, event: Deadlock) -> None:
        """Keep a deadlock that was broken, with the same details as its log event."""
        self._deadlocks.append(
            {
                "at": time.time(),
                "policy": event.policy,
                "resolution": event.resolution,
                "victim": {"task": event.victim.task, "run_id": event.victim.run_id},
                "cycle": [
                    {
                        "task": each.task,
                        "run_id": each.run_id,
                        "lock": each.resource,
                        "resource": hashed(each.key, self._resource_detail) if each.key else "",
                    }
                    for each in event.cycle
                ],
            }
        )

    def report(self, running: Iterable[dict[str, Any]]) -> dict[str, Any]:
        """The body of ``/debug/runs``.

        Args:
            running: The attempts that run now, see `describe_running`.
        """
        return {
            "at": time.time(),
            "running": list(running),
            "ended": [{**_described(facts), **dict(zip(_ENDED, end, strict=True))} for facts, end in list(self._ended)],
            "deadlocks": list(self._deadlocks),
        }


def describe_running(
    attempt: Attempt, span: Span, queue_wait: float | None, stagger: StaggerNow | None
) -> dict[str, Any]:
    """One attempt that runs now, as data for JSON."""
    now = attempt.monotonic()
    elapsed = attempt.elapsed_seconds
    stages = dict(attempt.stage_seconds)
    # The stage that lasts has not been charged yet.
    stages[attempt.stage] = stages.get(attempt.stage, 0.0) + max(0.0, elapsed - sum(stages.values()))
    sleeping = None
    if stagger is not None and attempt.phase == "stagger":
        sleeping = {
            "window_s": stagger.call.window_seconds,
            "delay_s": stagger.call.delay_seconds,
            "slept_s": now - stagger.since,
        }
    phase: Phase = attempt.phase
    return {
        **_described(_facts(attempt, span)),
        "queue_wait_s": queue_wait,
        "started_at": time.time() - elapsed,
        "elapsed_s": elapsed,
        "timeout_s": attempt.timeout_seconds,
        "stages": stages,
        "phase": phase,
        "stagger": sleeping,
    }


def _facts(attempt: Attempt, span: Span) -> _Facts:
    return (
        attempt.task.name,
        attempt.workflow_run_id,
        attempt.task_run_id,
        attempt.attempt_number,
        attempt.max_attempts,
        attempt.worker_id,
        span.get_span_context(),
        attempt.flow_name,
        attempt.flow_kind,
        attempt.flow_id,
        attempt.flow_step,
    )


def _described(facts: _Facts) -> dict[str, Any]:
    described: dict[str, Any] = dict(zip(_OF_EACH, facts, strict=True))
    context: SpanContext = described["trace_id"]
    described["trace_id"] = f"{context.trace_id:032x}" if context.is_valid else ""
    return described
