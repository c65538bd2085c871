"""Rate limits: buckets that refill to their limit each window; a task takes its units when it is assigned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from mageflow.engine.contracts import v1_workflows_pb2 as pb
from mageflow.engine.expressions import ExpressionError, evaluate
from mageflow.engine.model import Task, TaskStatus

if TYPE_CHECKING:
    from mageflow.engine.core import Engine

_DAY = 86_400.0
WINDOWS: dict[str, float] = {
    "SECOND": 1.0,
    "MINUTE": 60.0,
    "HOUR": 3600.0,
    "DAY": _DAY,
    "WEEK": 7 * _DAY,
    "MONTH": 30 * _DAY,
    "YEAR": 365 * _DAY,
}


@dataclass(slots=True, kw_only=True, eq=False)
class Bucket:
    """One key's units; the window is in seconds."""

    key: str
    limit: int
    window_name: str
    value: int
    refilled_at: datetime
    paused_until: datetime | None = None

    @property
    def window(self) -> float:
        """Seconds between refills."""
        return WINDOWS[self.window_name]

    def refill(self, now: datetime) -> None:
        """Fill up when a window has passed."""
        if (now - self.refilled_at).total_seconds() >= self.window:
            self.value = self.limit
            self.refilled_at = now

    def opens_at(self, now: datetime) -> datetime:
        """When units may be there again."""
        refill = self.refilled_at + timedelta(seconds=self.window)
        if self.paused_until is not None and self.paused_until > now:
            return self.paused_until
        return max(refill, now)


@dataclass(frozen=True, slots=True)
class Need:
    """Units of one key that a task takes."""

    key: str
    units: int


class RateLimits:
    """All buckets."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.buckets: dict[str, Bucket] = {}
        self._wakes: dict[str, datetime] = {}

    def put(self, key: str, limit: int, window_name: str) -> Bucket:
        """Create a bucket, or change its limit and window; a changed limit fills it up."""
        now = self._engine.clock.now()
        bucket = self.buckets.get(key)
        if bucket is None:
            bucket = Bucket(key=key, limit=limit, window_name=window_name, value=limit, refilled_at=now)
            self.buckets[key] = bucket
        elif (bucket.limit, bucket.window_name) != (limit, window_name):
            bucket.limit, bucket.window_name, bucket.value, bucket.refilled_at = limit, window_name, limit, now
        self._engine.scheduler.wake()
        return bucket

    def pause(self, key: str, until: datetime) -> datetime:
        """Grant nothing from a bucket until then; never shortens a pause. Returns the end of the pause."""
        bucket = self.buckets.get(key) or self.put(key, 0, "MINUTE")
        if bucket.paused_until is None or bucket.paused_until < until:
            bucket.paused_until = until
        return bucket.paused_until

    def prepare(self, task: Task) -> bool:
        """Work out what the task needs, making dynamic buckets; a failing expression fails the task.

        Returns:
            Whether the task may go on to the scheduler.
        """
        if not task.step.rate_limits:
            return True
        try:
            task.rate_needs = [self._need(task, limit) for limit in task.step.rate_limits]
        except ExpressionError as error:
            self._engine.lifecycle.finish(
                task, TaskStatus.FAILED, error=f"failed to parse rate limit expression: {error}"
            )
            return False
        return True

    def take(self, task: Task) -> bool:
        """Take all units the task needs, or none; when none, the scheduler is woken as soon as they may be there."""
        if not task.rate_needs:
            return True
        now = self._engine.clock.now()
        buckets: list[tuple[Bucket, int]] = []
        for need in task.rate_needs:
            bucket = self.buckets.get(need.key)
            if bucket is None:
                return False
            bucket.refill(now)
            if (bucket.paused_until is not None and bucket.paused_until > now) or bucket.value < need.units:
                self._wake_at(bucket, now)
                return False
            buckets.append((bucket, need.units))
        for bucket, units in buckets:
            bucket.value -= units
        return True

    def _need(self, task: Task, limit: pb.CreateTaskRateLimit) -> Need:
        run = task.run
        variables = {
            "input": run.input,
            "additional_metadata": run.metadata,
            "parents": {name: each.output for name, each in run.tasks.items() if each.status is TaskStatus.COMPLETED},
        }
        key = limit.key
        if limit.key_expr:
            value = evaluate(limit.key_expr, variables)
            if not isinstance(value, str):
                raise ExpressionError(f"key expression {limit.key_expr!r} must yield a string, not {value!r}")
            key = value
        units = _integer(limit.units_expr, variables) if limit.units_expr else limit.units
        if limit.limit_values_expr:
            self.put(key, _integer(limit.limit_values_expr, variables), pb.RateLimitDuration.Name(limit.duration))
        return Need(key, units)

    def _wake_at(self, bucket: Bucket, now: datetime) -> None:
        when = bucket.opens_at(now)
        if self._wakes.get(bucket.key) == when:
            return
        self._wakes[bucket.key] = when
        self._engine.clock.later((when - now).total_seconds() + 0.001, self._woken, bucket)

    def _woken(self, bucket: Bucket) -> None:
        self._wakes.pop(bucket.key, None)
        self._engine.scheduler.wake()


def _integer(expression: str, variables: Mapping[str, object]) -> int:
    value = evaluate(expression, variables)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ExpressionError(f"expression {expression!r} must yield a number, not {value!r}")
    return int(value)
