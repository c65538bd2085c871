"""Rate limits: buckets that are full again after each window. A task takes its units when it is assigned."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from mageflow.engine.clock import Clock
from mageflow.engine.contracts import v1_workflows_pb2 as pb
from mageflow.engine.expressions import ExpressionError, evaluate, evaluate_integer
from mageflow.engine.model import RateLimitNeed, Task, TaskStatus
from mageflow.engine.task_queue import TaskQueue

_DAY = 86_400.0
_WINDOW_SECONDS: dict[str, float] = {
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
    """The units of one key.

    Attributes:
        limit: units after a refill.
        window_name: ``SECOND`` to ``YEAR``.
        value: units that are left.
        paused_until: no units are granted before this time.
    """

    key: str
    limit: int
    window_name: str
    value: int
    refilled_at: datetime
    paused_until: datetime | None = None

    @property
    def window(self) -> float:
        """Seconds between two refills."""
        return _WINDOW_SECONDS[self.window_name]

    def refill(self, now: datetime) -> None:
        """Fill the bucket if its window has passed."""
        if (now - self.refilled_at).total_seconds() >= self.window:
            self.value = self.limit
            self.refilled_at = now

    def opens_at(self, now: datetime) -> datetime:
        """Return the earliest time at which the bucket can grant units again."""
        refill = self.refilled_at + timedelta(seconds=self.window)
        if self.paused_until is not None and self.paused_until > now:
            return self.paused_until
        return max(refill, now)


class RateLimits:
    """All buckets.

    Args:
        clock: the windows.
        queue: tasks in it may be waiting for units.
    """

    def __init__(self, clock: Clock, queue: TaskQueue) -> None:
        self.buckets: dict[str, Bucket] = {}
        self._clock = clock
        self._queue = queue
        self._wake_times: dict[str, datetime] = {}

    def put(self, key: str, limit: int, window_name: str) -> Bucket:
        """Create a bucket, or change its limit and window. A change fills it."""
        now = self._clock.now()
        bucket = self.buckets.get(key)
        if bucket is None:
            bucket = Bucket(key=key, limit=limit, window_name=window_name, value=limit, refilled_at=now)
            self.buckets[key] = bucket
        elif (bucket.limit, bucket.window_name) != (limit, window_name):
            bucket.limit, bucket.window_name, bucket.value, bucket.refilled_at = limit, window_name, limit, now
        self._queue.wake()
        return bucket

    def pause(self, key: str, until: datetime) -> datetime:
        """Grant nothing from a bucket before ``until``; return the end of the pause. It never becomes shorter."""
        bucket = self.buckets.get(key) or self.put(key, 0, "MINUTE")
        if bucket.paused_until is None or bucket.paused_until < until:
            bucket.paused_until = until
        return bucket.paused_until

    def prepare(self, task: Task) -> None:
        """Evaluate what the task needs, and create the buckets of dynamic limits.

        Raises:
            ExpressionError: an expression fails or yields the wrong type.
        """
        if task.definition.rate_limits:
            task.rate_limit_needs = tuple(self._need(task, limit) for limit in task.definition.rate_limits)

    def take(self, task: Task) -> bool:
        """Take all units that the task needs, or none. If none, wake the queue when they may be there."""
        if not task.rate_limit_needs:
            return True
        now = self._clock.now()
        buckets: list[tuple[Bucket, int]] = []
        for need in task.rate_limit_needs:
            bucket = self.buckets.get(need.key)
            if bucket is None:
                return False
            bucket.refill(now)
            if (bucket.paused_until is not None and bucket.paused_until > now) or bucket.value < need.units:
                self._wake_when_open(bucket, now)
                return False
            buckets.append((bucket, need.units))
        for bucket, units in buckets:
            bucket.value -= units
        return True

    def _need(self, task: Task, limit: pb.CreateTaskRateLimit) -> RateLimitNeed:
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
        units = evaluate_integer(limit.units_expr, variables) if limit.units_expr else limit.units
        if limit.limit_values_expr:
            self.put(
                key, evaluate_integer(limit.limit_values_expr, variables), pb.RateLimitDuration.Name(limit.duration)
            )
        return RateLimitNeed(key, units)

    def _wake_when_open(self, bucket: Bucket, now: datetime) -> None:
        moment = bucket.opens_at(now)
        if self._wake_times.get(bucket.key) == moment:
            return
        self._wake_times[bucket.key] = moment
        self._clock.later((moment - now).total_seconds() + 0.001, self._wake, bucket)

    def _wake(self, bucket: Bucket) -> None:
        self._wake_times.pop(bucket.key, None)
        self._queue.wake()
