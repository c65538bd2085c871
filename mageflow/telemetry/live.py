"""The live table: which attempts run in this process right now, and the gauges that follow from it."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mageflow.interceptors import Attempt, TaskInfo
from mageflow.telemetry.gauges import Sample
from mageflow.telemetry.names import metrics

if TYPE_CHECKING:
    from mageflow.telemetry.attempts import AttemptScope

__all__ = ["LiveAttempts"]


class LiveAttempts:
    """Attempts between wrapper entry and wrapper exit. Read from the scraping thread while it changes."""

    def __init__(self, near_timeout_ratio: float) -> None:
        self._ratio = near_timeout_ratio
        self._scopes: dict[Attempt, AttemptScope] = {}
        self._orphans: set[Attempt] = set()
        self.served: tuple[TaskInfo, ...] = ()
        """Tasks this process serves: their gauges read 0, not nothing, while no attempt is live."""

    def add(self, attempt: Attempt, scope: "AttemptScope") -> None:
        """An attempt begins."""
        self._scopes[attempt] = scope

    def remove(self, attempt: Attempt) -> None:
        """An attempt ended; a synchronous body that goes on without it is an orphan until it ends, too."""
        self._scopes.pop(attempt, None)
        if attempt.thread_running:
            self._orphans.add(attempt)

    def scope_of(self, attempt: Attempt | None) -> "AttemptScope | None":
        """The scope of a live attempt."""
        return None if attempt is None else self._scopes.get(attempt)

    def __len__(self) -> int:
        return len(self._scopes)

    def near_timeout(self) -> Iterable[tuple["AttemptScope", float]]:
        """Live attempts that have used most of their timeout, with the share they have used."""
        for attempt, scope in list(self._scopes.items()):
            used = used_ratio(attempt)
            if used is not None and used > self._ratio:
                yield scope, used

    def samples(self) -> Iterable[Sample]:
        """See `mageflow.telemetry.gauges.GaugeSource`."""
        in_flight: dict[tuple[str, ...], float] = {
            (info.name, phase): 0.0 for info in self.served for phase in metrics.PHASES
        }
        near: dict[tuple[str, ...], float] = {(info.name,): 0.0 for info in self.served}
        orphans = dict(near)
        used = {(pool,): 0.0 for pool in metrics.POOLS} if self.served else {}
        for attempt in list(self._scopes):
            task = attempt.task.name
            in_flight[task, attempt.phase] = in_flight.get((task, attempt.phase), 0.0) + 1
            used[attempt.task.pool,] = used.get((attempt.task.pool,), 0.0) + 1
        for scope, _ in self.near_timeout():
            key = (scope.attempt.task.name,)
            near[key] = near.get(key, 0.0) + 1
        for attempt in list(self._orphans):
            if attempt.thread_running:
                orphans[attempt.task.name,] = orphans.get((attempt.task.name,), 0.0) + 1
            else:
                self._orphans.discard(attempt)
        for metric, series in (
            (metrics.TASKS_IN_FLIGHT, in_flight),
            (metrics.TASKS_NEAR_TIMEOUT, near),
            (metrics.TASK_ORPHAN_THREADS, orphans),
            (metrics.WORKER_SLOTS_USED, used),
        ):
            for labels, value in series.items():
                yield metric, labels, value
        for info in self.served:
            yield metrics.TASK_TIMEOUT, (info.name,), info.execution_timeout_seconds
            if info.stagger_window_seconds is not None:
                yield metrics.STAGGER_WINDOW, (info.name,), info.stagger_window_seconds


def used_ratio(attempt: Attempt) -> float | None:
    """The share of its timeout, extensions included, an attempt has used; None when it has no timeout."""
    timeout = attempt.timeout_seconds
    return attempt.elapsed_seconds / timeout if timeout > 0 else None
