"""Workers, tasks, staggers and single attempts, from readings of endpoints."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from mageflow.cli.top.sources.endpoints import Labels, Scrape, by_label, label
from mageflow.cli.top.sources.snapshot import BrokenDeadlock, CycleEdge, RunAttempt, Sleeper, TaskRow, WorkerRow
from mageflow.cli.top.sources.window import CounterWindow, buckets_of, quantile
from mageflow.interceptors import WaitingRuns
from mageflow.telemetry.names import metrics

__all__ = [
    "attempts_of",
    "deadlocks_of",
    "deadlocks_total",
    "has_queue",
    "sleepers_of",
    "stagger_windows",
    "task_rows",
    "waiting_of",
    "worker_rows",
]

_UNSUCCESSFUL = ("failed", "retried", "timed_out")


def worker_rows(scrapes: Sequence[Scrape]) -> tuple[WorkerRow, ...]:
    """One row for each endpoint, by URL."""
    return tuple(
        WorkerRow(
            url=each.url,
            name=next((label(labels, "worker") for labels in each.samples.get(metrics.WORKER_INFO.name, {})), ""),
            slots=sum(each.samples.get(metrics.WORKER_SLOTS.name, {}).values()),
            slots_used=sum(each.samples.get(metrics.WORKER_SLOTS_USED.name, {}).values()),
            is_local=each.runs is not None,
        )
        for each in sorted(scrapes, key=lambda scrape: scrape.url)
    )


def task_rows(
    scrapes: Sequence[Scrape], window: CounterWindow, queue: Mapping[str, WaitingRuns] | None = None
) -> tuple[TaskRow, ...]:
    """One row for each task that a worker serves or that waits in Hatchet, by name.

    Args:
        scrapes: The readings.
        window: The counters of the last minute.
        queue: What Hatchet itself says waits, where no worker has a metric of it.
    """
    waiting = waiting_of(scrapes) if queue is None else queue
    in_flight = by_label([each.samples for each in scrapes], metrics.TASKS_IN_FLIGHT.name, "task", "phase")
    runs = window.total(metrics.TASK_RUNS.name)
    recent = window.increase(metrics.TASK_RUNS.name)
    names = {task for task, _ in in_flight} | {label(labels, "task") for labels in runs}
    names |= {task for task, each in waiting.items() if each.count}
    durations = _Histograms(window, metrics.TASK_RUN_DURATION.name)
    waits = _Histograms(window, metrics.TASK_QUEUE_WAIT.name)
    return tuple(
        TaskRow(
            task=name,
            in_flight={phase: int(count) for (task, phase), count in in_flight.items() if task == name and count},
            outcomes=_outcomes(runs, name),
            per_second=_rate(recent, name, window.seconds),
            unsuccessful_per_second=_rate(recent, name, window.seconds, _UNSUCCESSFUL),
            duration_p95=durations.p95(name),
            queue_wait_p95=waits.p95(name),
            is_recent=durations.is_recent(name),
            **_waiting(waiting, name, is_known=queue is not None or has_queue(scrapes)),
        )
        for name in sorted(names)
    )


def has_queue(scrapes: Sequence[Scrape]) -> bool:
    """Whether a worker that was read shows what waits in Hatchet. The elected one does."""
    return any(metrics.TASKS_WAITING.name in each.samples for each in scrapes)


def waiting_of(scrapes: Sequence[Scrape]) -> dict[str, WaitingRuns]:
    """What waits in Hatchet, by task, as the elected worker shows it. Two readings are one view: the larger counts."""
    found: dict[str, WaitingRuns] = {}
    for each in scrapes:
        ages = each.samples.get(metrics.TASK_OLDEST_WAITING.name, {})
        for labels, count in each.samples.get(metrics.TASKS_WAITING.name, {}).items():
            known = found.get(label(labels, "task"), WaitingRuns(0, 0.0))
            age = max(known.oldest_seconds, ages.get(labels, 0.0))
            found[label(labels, "task")] = WaitingRuns(max(known.count, int(count)), age)
    return found


class _Histograms:
    """Percentiles of one histogram: of the window if something was observed in it, else of all."""

    def __init__(self, window: CounterWindow, metric: str) -> None:
        self._recent = window.increase(f"{metric}_bucket")
        self._total = window.total(f"{metric}_bucket")

    def is_recent(self, task: str) -> bool:
        return any(buckets_of(self._recent, task).values())

    def p95(self, task: str) -> float | None:
        source = self._recent if self.is_recent(task) else self._total
        return quantile(0.95, buckets_of(source, task))


def _waiting(waiting: Mapping[str, WaitingRuns], task: str, *, is_known: bool) -> dict[str, Any]:
    if not is_known:
        return {}
    runs = waiting.get(task, WaitingRuns(0, 0.0))
    return {"waiting": runs.count, "oldest_waiting_s": runs.oldest_seconds}


def _outcomes(runs: Mapping[Labels, float], task: str) -> dict[str, int]:
    of_task = {labels: count for labels, count in runs.items() if count and label(labels, "task") == task}
    return {label(labels, "outcome"): int(count) for labels, count in of_task.items()}


def _rate(
    recent: Mapping[Labels, float], task: str, seconds: float, outcomes: Sequence[str] = metrics.OUTCOMES
) -> float | None:
    if seconds <= 0:
        return None
    ended = (
        count
        for labels, count in recent.items()
        if label(labels, "task") == task and label(labels, "outcome") in outcomes
    )
    return sum(ended) / seconds


def stagger_windows(scrapes: Sequence[Scrape]) -> dict[str, float]:
    """The configured windows in seconds, by task."""
    return {
        label(labels, "task"): seconds
        for each in scrapes
        for labels, seconds in each.samples.get(metrics.STAGGER_WINDOW.name, {}).items()
    }


def deadlocks_total(scrapes: Sequence[Scrape]) -> int:
    """Deadlocks since the workers started."""
    return int(sum(sum(each.samples.get(metrics.DEADLOCKS.name, {}).values()) for each in scrapes))


def _documents(scrapes: Iterable[Scrape], part: str) -> Iterable[Mapping[str, Any]]:
    for each in scrapes:
        if each.runs is not None:
            yield from each.runs.get(part, ())


def sleepers_of(scrapes: Sequence[Scrape]) -> tuple[Sleeper, ...]:
    """Attempts in their stagger window; the one that wakes next comes first."""
    found = [
        Sleeper(
            task=each["task"],
            run_id=each["run_id"],
            window_s=each["stagger"]["window_s"],
            delay_s=each["stagger"]["delay_s"],
            slept_s=each["stagger"]["slept_s"],
        )
        for each in _documents(scrapes, "running")
        if each.get("stagger")
    ]
    return tuple(sorted(found, key=lambda sleeper: sleeper.delay_s - sleeper.slept_s))


def deadlocks_of(scrapes: Sequence[Scrape]) -> tuple[BrokenDeadlock, ...]:
    """Deadlocks that were broken lately; the latest first."""
    found = [
        BrokenDeadlock(
            at=each["at"],
            victim_task=each["victim"]["task"],
            victim_run_id=each["victim"]["run_id"],
            resolution=each["resolution"],
            policy=each["policy"],
            cycle=tuple(
                CycleEdge(edge["task"], edge["run_id"], edge["lock"], edge["resource"]) for edge in each["cycle"]
            ),
        )
        for each in _documents(scrapes, "deadlocks")
    ]
    return tuple(sorted(found, key=lambda deadlock: -deadlock.at))


_FIELDS = frozenset(each.name for each in fields(RunAttempt))
_DEFAULTS: Mapping[str, Any] = {"phase": "", "outcome": "", "exception": "", "message": "", "will_retry": False}


def attempts_of(scrapes: Sequence[Scrape]) -> tuple[RunAttempt, ...]:
    """Attempts that run and those that ended lately, by start."""
    found = [_attempt(each) for part in ("ended", "running") for each in _documents(scrapes, part)]
    return tuple(sorted(found, key=lambda attempt: attempt.started_at))


def _attempt(document: Mapping[str, Any]) -> RunAttempt:
    known = {name: value for name, value in document.items() if name in _FIELDS}
    known["outcome"] = document.get("outcome") or ""
    return RunAttempt(**{**_DEFAULTS, **known})
