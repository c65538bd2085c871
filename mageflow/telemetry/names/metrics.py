"""Every metric: its name, type, labels, closed label values, buckets, unit and meaning.

Instruments, dashboards, rules and tests are built from `METRICS`. ``docs/telemetry.md`` explains labels and bucket
sets; its tables are written from here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from mageflow.types import OutageReason, UnservedReason

Kind = Literal["counter", "gauge", "histogram"]
View = Literal["process", "cluster"]
Merge = Literal["sum", "max"]


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """One metric family. Compared by identity: there is one object per name."""

    name: str
    """As in Prometheus, with ``_total`` for counters."""
    kind: Kind
    labels: tuple[str, ...]
    help: str
    unit: str = ""
    """Grafana's name of the unit: ``s``, ``bytes``, ``percentunit``; empty for a count."""
    buckets: tuple[float, ...] = ()
    exemplars: bool = False
    closed: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """Labels whose values are all known. Their series exist with value 0 from the start."""
    view: View = "process"
    """``cluster``: exported by the elected leader, absent on other processes; panels use ``max``."""
    merge: Merge = "sum"
    """How the same gauge of two clients in one process is merged. Panels aggregate in the same way."""


QUANTILE_ERROR: Final = 0.25
"""The largest error of a quantile on a board, as a share of the true value, between the ends of the buckets."""

_DECADE: Final = ("1", "1.25", "1.55", "1.9", "2.35", "2.9", "3.6", "4.5", "5.5", "6.8", "8.2")


def grid(lowest: float, highest: float) -> tuple[float, ...]:
    """Upper bounds of buckets, eleven in each power of ten. The last one is ``highest`` or the next one above it.

    No bound is more than `QUANTILE_ERROR` above the one before it. A quantile and what `histogram_quantile` computes
    for it are in the same bucket, so this is the largest error between the first and the last bound. All series of a
    metric have the same bounds: they could not be summed by ``le`` otherwise.
    """
    bounds: list[float] = []
    for power in range(-6, 12):
        for step in _DECADE:
            bound = float(f"{step}e{power}")
            if bound >= lowest:
                bounds.append(bound)
            if bound >= highest:
                return tuple(bounds)
    raise ValueError(f"{highest} is too large")


# Bucket sets, in seconds.
DUR: Final = grid(0.01, 3600)
WAIT: Final = grid(0.045, 3600)
RPC: Final = grid(0.0045, 30)
STAG: Final = grid(0.1, 1800)
LOAD: Final = grid(0.00045, 2.5)
LOCK: Final = grid(0.001, 900)
FLOW: Final = grid(0.1, 86400)
LAG: Final = grid(0.001, 10)
RATIO: Final = (*grid(0.1, 0.68), 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.1)
SIZE: Final = grid(100, 1e6)
STEPS: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 500.0, 1000.0)
CYCLE: Final = (2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0, 16.0)

# Closed sets of label values.
OUTCOMES: Final = ("succeeded", "failed", "retried", "timed_out", "cancelled", "skipped")
ENDINGS: Final = ("succeeded", "failed", "retried", "timed_out", "cancelled")
OK_ERROR: Final = ("ok", "error")
OUTAGE_REASONS: Final = get_args(OutageReason)
UNSERVED_REASONS: Final = get_args(UnservedReason)
STAGES: Final = ("signature_load", "stagger", "lock_wait", "body", "callbacks")
PHASES: Final = ("loading", "stagger", "lock_wait", "running", "cancelling")
SOURCES: Final = ("direct", "signature", "chain", "swarm", "callback", "schedule", "cron", "event")
ENQUEUE_OPERATIONS: Final = ("run", "run_many", "schedule", "push_event")
STAGGER_OUTCOMES: Final = ("completed", "cancelled", "extension_failed")
EXTENSION_REASONS: Final = ("stagger", "lock", "redis", "user")
SIGNATURE_KINDS: Final = ("task", "chain", "swarm")
LOAD_RESULTS: Final = ("hit", "missing", "invalid", "foreign", "error")
DAMAGE_KINDS: Final = ("record", "index", "entry")
WRITE_OPERATIONS: Final = ("create", "update", "delete", "touch")
WRITE_RESULTS: Final = ("ok", "missing", "error")
FLOW_KINDS: Final = ("chain", "swarm")
FLOW_OUTCOMES: Final = ("succeeded", "failed", "cancelled")
ITEM_STATES: Final = ("pending", "running", "done", "failed")
CALLBACK_KINDS: Final = ("success", "error")
CALLBACK_RESULTS: Final = ("enqueued", "failed")
RESEND_REASONS: Final = ("lost", "unscheduled")
ACQUISITION_OUTCOMES: Final = ("acquired", "timeout", "deadlock", "cancelled", "error")
RENEWAL_RESULTS: Final = ("ok", "lost", "error")
GRAPH_ELEMENTS: Final = ("nodes", "edges", "longest_path")
RESOLUTIONS: Final = ("victim_retried", "victim_failed")
CHECK_RESULTS: Final = ("clean", "cycle", "error")
POOLS: Final = ("default", "durable")
SIGNALS: Final = ("metrics", "traces", "logs", "context", "exposition", "clock", "interceptor")

OTHER: Final = "__other__"
"""Replaces a label value that is not declared, or that is above the limit of its label."""

EVENT_TASK: Final = "__event__"
"""The ``task`` of a pushed event: only Hatchet knows which tasks it starts."""

SERIES: Final = "__series__"
"""The ``label`` of `TELEMETRY_DROPPED_LABELS` for a series above `Settings.metrics_max_series`."""

REGISTERED_LABELS: Final = frozenset({"task", "victim_task", "waiter_task", "holder_task", "lock"})
"""Labels that accept declared names only."""

LABEL_LIMITS: Final[Mapping[str, int]] = {
    "exception": 50,
    "error": 50,
    "flow_name": 100,
    "status": 20,
    "operation": 100,
    "label": 50,
}
"""Limit for the values of a free label in one process."""

FOLDED_LABELS: Final = (*sorted(REGISTERED_LABELS), *(label for label in LABEL_LIMITS if label != "label"), SERIES)
"""Every ``label`` of `TELEMETRY_DROPPED_LABELS`."""


def _in_order(labels: tuple[str, ...], closed: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    return (*labels, *(label for label in closed if label not in labels))


def _counter(name: str, help_: str, *labels: str, **closed: tuple[str, ...]) -> Metric:
    return Metric(name, "counter", _in_order(labels, closed), help_, closed=closed)


def _gauge(
    name: str, help_: str, *labels: str, unit: str = "", merge: Merge = "sum", **closed: tuple[str, ...]
) -> Metric:
    # Ages and configured durations are never added up.
    merge = "max" if unit == "s" else merge
    return Metric(name, "gauge", _in_order(labels, closed), help_, unit=unit, closed=closed, merge=merge)


def _cluster(name: str, help_: str, *labels: str, unit: str = "", **closed: tuple[str, ...]) -> Metric:
    return Metric(
        name, "gauge", _in_order(labels, closed), help_, unit=unit, closed=closed, view="cluster", merge="max"
    )


def _histogram(
    name: str,
    help_: str,
    buckets: tuple[float, ...],
    *labels: str,
    unit: str = "s",
    exemplars: bool = False,
    **closed: tuple[str, ...],
) -> Metric:
    return Metric(name, "histogram", _in_order(labels, closed), help_, unit, buckets, exemplars, closed)


# Tasks.
TASK_RUNS: Final = _counter("mageflow_task_runs_total", "Finished attempts.", "task", outcome=OUTCOMES)
TASK_OUTCOMES_CORRECTED: Final = _counter(
    "mageflow_task_outcomes_corrected_total",
    "Attempts whose end was uncertain on the worker, and for which Hatchet's answer was another outcome.",
    **{"from": ENDINGS, "to": ENDINGS},
)
TASK_RUN_DURATION: Final = _histogram(
    "mageflow_task_run_duration_seconds",
    "Wall time of finished attempts without their stagger sleep.",
    DUR, "task", exemplars=True, outcome=OK_ERROR,
)  # fmt: skip
TASK_QUEUE_WAIT: Final = _histogram(
    "mageflow_task_queue_wait_seconds",
    "From enqueue or due time to the start of the first attempt.",
    WAIT, "task", exemplars=True,
)  # fmt: skip
TASK_STAGE_SECONDS: Final = _counter(
    "mageflow_task_stage_seconds_total", "Slot-seconds spent per stage; its rate is the mean number of slots.",
    "task", stage=STAGES,
)  # fmt: skip
TASKS_WAITING: Final = _cluster("mageflow_tasks_waiting", "Runs in Hatchet that no worker has started.", "task")
TASK_OLDEST_WAITING: Final = _cluster(
    "mageflow_task_oldest_waiting_seconds", "Age of the oldest run without an attempt; 0 if none.", "task", unit="s"
)
TASKS_IN_FLIGHT: Final = _gauge("mageflow_tasks_in_flight", "Live attempts by phase.", "task", phase=PHASES)
TASK_FAILURES: Final = _counter(
    "mageflow_task_failures_total", "Attempts that ended with an exception, by class name.", "task", "exception"
)
TASK_TIMEOUT: Final = _gauge("mageflow_task_timeout_seconds", "Configured execution timeout.", "task", unit="s")
TASK_TIMEOUT_USED: Final = _histogram(
    "mageflow_task_timeout_used_ratio",
    "Wall time at the end of an attempt over its timeout with extensions.",
    RATIO, "task", unit="percentunit",
)  # fmt: skip
TASKS_NEAR_TIMEOUT: Final = _gauge(
    "mageflow_tasks_near_timeout", "Live attempts that have used most of their timeout.", "task"
)
TASK_ORPHAN_THREADS: Final = _gauge(
    "mageflow_task_orphan_threads", "Synchronous bodies still running after their attempt was cancelled.", "task"
)
TASKS_ENQUEUED: Final = _counter(
    "mageflow_tasks_enqueued_total", "Runs handed to Hatchet.", "task", source=SOURCES, result=OK_ERROR
)
TASKS_UNSERVED: Final = _counter(
    "mageflow_tasks_unserved_total",
    "Tasks whose run did not start because nothing serves it; once per task and client, by the sender.",
    "task", reason=UNSERVED_REASONS,
)  # fmt: skip
TASK_ENQUEUE_DURATION: Final = _histogram(
    "mageflow_task_enqueue_duration_seconds", "Calls that hand runs to Hatchet.", RPC, operation=ENQUEUE_OPERATIONS
)

# Stagger and timeouts.
STAGGER_DELAY: Final = _histogram(
    "mageflow_stagger_delay_seconds", "Delays as drawn.", STAG, "task", exemplars=True
)  # fmt: skip
STAGGER_WINDOW: Final = _gauge("mageflow_stagger_window_seconds", "Configured stagger window.", "task", unit="s")
STAGGERS: Final = _counter("mageflow_staggers_total", "Stagger sleeps that ended.", "task", outcome=STAGGER_OUTCOMES)
TIMEOUT_EXTENSION: Final = _histogram(
    "mageflow_timeout_extension_seconds", "Granted timeout extensions.", STAG, "task", reason=EXTENSION_REASONS
)
TIMEOUT_EXTENSIONS: Final = _counter(
    "mageflow_timeout_extensions_total", "Requested timeout extensions.",
    "task", reason=EXTENSION_REASONS, result=OK_ERROR,
)  # fmt: skip
TIMEOUT_EXTENSION_REQUEST: Final = _histogram(
    "mageflow_timeout_extension_request_duration_seconds", "Requests for more execution time.", RPC, result=OK_ERROR
)

# Signatures and Redis.
SIGNATURE_LOADS: Final = _counter(
    "mageflow_signature_loads_total", "Signature loads.", kind=SIGNATURE_KINDS, result=LOAD_RESULTS
)
SIGNATURE_LOAD_DURATION: Final = _histogram(
    "mageflow_signature_load_duration_seconds", "Signature load time.", LOAD, kind=SIGNATURE_KINDS
)
SIGNATURE_WRITES: Final = _counter(
    "mageflow_signature_writes_total", "Signature writes.",
    kind=SIGNATURE_KINDS, operation=WRITE_OPERATIONS, result=WRITE_RESULTS,
)  # fmt: skip
SIGNATURE_SIZE: Final = _histogram(
    "mageflow_signature_size_bytes", "Serialised size of signatures.", SIZE, unit="bytes", kind=SIGNATURE_KINDS
)
SIGNATURES: Final = _cluster("mageflow_signatures", "Stored signatures.", "kind", "status", kind=SIGNATURE_KINDS)
STORE_DAMAGED: Final = _counter(
    "mageflow_store_damaged_total",
    "Records, indexes and entries of indexes in Redis that could not be read and were put aside.",
    kind=DAMAGE_KINDS,
)
REDIS_ERRORS: Final = _counter("mageflow_redis_errors_total", "Failed Redis round trips.", "operation", "error")
REDIS_OUTAGES: Final = _counter(
    "mageflow_redis_outages_total", "Times that Redis went away or began to refuse, by its reason.",
    reason=OUTAGE_REASONS,
)  # fmt: skip
SETTLEMENTS_PENDING: Final = _gauge(
    "mageflow_settlements_pending",
    "Ended attempts whose outcome Redis has not taken yet; repeated until it does.",
)

# Flows.
FLOWS_STARTED: Final = _counter("mageflow_flows_started_total", "Flows started.", "flow", "flow_name", flow=FLOW_KINDS)
FLOWS_FINISHED: Final = _counter(
    "mageflow_flows_finished_total", "Flows closed; counted once, by the process that closed them.",
    "flow", "flow_name", flow=FLOW_KINDS, outcome=FLOW_OUTCOMES,
)  # fmt: skip
FLOW_DURATION: Final = _histogram(
    "mageflow_flow_duration_seconds", "From start to close, both by the clock of Redis.",
    FLOW, "flow", "flow_name", exemplars=True, flow=FLOW_KINDS,
)  # fmt: skip
FLOW_HANDOVER: Final = _histogram(
    "mageflow_flow_handover_seconds",
    "From the end of one step to the start of the next, or from a free place of a swarm to its next item.",
    WAIT, flow=FLOW_KINDS,
)  # fmt: skip
FLOW_STEPS: Final = _histogram("mageflow_flow_steps", "Steps per flow.", STEPS, unit="", flow=FLOW_KINDS)
FLOWS_ACTIVE: Final = _cluster("mageflow_flows_active", "Flows not closed yet.", flow=FLOW_KINDS)
FLOW_OLDEST_ACTIVE: Final = _cluster(
    "mageflow_flow_oldest_active_seconds", "Age of the oldest flow not closed yet.", unit="s", flow=FLOW_KINDS
)
SWARM_ITEMS: Final = _cluster("mageflow_swarm_items", "Items of swarms not closed yet.", state=ITEM_STATES)
CALLBACKS: Final = _counter(
    "mageflow_callbacks_total", "Callbacks of signatures and flows.", kind=CALLBACK_KINDS, result=CALLBACK_RESULTS
)
FLOW_RESENDS: Final = _counter(
    "mageflow_flow_resends_total",
    "Runs of steps, items and callbacks handed to Hatchet again: it lost the one before, or found no worker for it.",
    reason=RESEND_REASONS,
)

# Locks and deadlocks.
LOCK_ACQUISITIONS: Final = _counter(
    "mageflow_lock_acquisitions_total", "Lock requests that ended.", "lock", outcome=ACQUISITION_OUTCOMES
)
LOCK_WAIT: Final = _histogram(
    "mageflow_lock_wait_seconds", "Time every lock request waited, granted or not.", LOCK, "lock", exemplars=True
)
LOCK_HOLD: Final = _histogram("mageflow_lock_hold_seconds", "Time locks were held.", LOCK, "lock")
LOCK_WAITERS: Final = _gauge("mageflow_lock_waiters", "Requests of this process that wait.", "lock", "task")
LOCK_HOLDERS: Final = _gauge("mageflow_lock_holders", "Leases this process holds.", "lock", "task")
LOCK_OLDEST_WAIT: Final = _gauge(
    "mageflow_lock_oldest_wait_seconds", "Longest current wait in this process; use max.", "lock", "task", unit="s"
)
LOCK_OLDEST_HOLD: Final = _gauge(
    "mageflow_lock_oldest_hold_seconds", "Longest current hold in this process; use max.", "lock", "task", unit="s"
)
LOCK_WAIT_EDGES: Final = _gauge(
    "mageflow_lock_wait_edges", "Wait-for edges of this process's waiters; summing workers gives the graph.",
    "waiter_task", "holder_task", "lock",
)  # fmt: skip
LOCK_LEASE_RENEWALS: Final = _counter(
    "mageflow_lock_lease_renewals_total", "Lease renewals; lost means held work is no longer exclusive.",
    "lock", result=RENEWAL_RESULTS,
)  # fmt: skip
LOCKS_ORPHANED: Final = _cluster("mageflow_locks_orphaned", "Leases whose owner is gone, not yet expired.", "lock")
WAIT_GRAPH_SIZE: Final = _cluster(
    "mageflow_wait_graph_size", "Size of the wait-for graph of the cluster.", element=GRAPH_ELEMENTS
)
DEADLOCKS: Final = _counter(
    "mageflow_deadlocks_total", "Deadlocks; counted once, by the process that resolved them.",
    "lock", "victim_task", resolution=RESOLUTIONS,
)  # fmt: skip
DEADLOCK_CYCLE_LENGTH: Final = _histogram(
    "mageflow_deadlock_cycle_length", "Members of found cycles.", CYCLE, unit=""
)  # fmt: skip
DEADLOCK_CHECKS: Final = _counter("mageflow_deadlock_checks_total", "Searches for cycles.", result=CHECK_RESULTS)
DEADLOCK_CHECK_DURATION: Final = _histogram(
    "mageflow_deadlock_check_duration_seconds", "Time of a search for cycles.", LOAD
)  # fmt: skip

# Worker and telemetry health.
WORKER_INFO: Final = _gauge(
    "mageflow_worker_info",
    "Always 1; what this worker is.",
    "worker",
    "version",
    "hatchet_sdk",
    "python",
    "hatchet_namespace",
    merge="max",
)
WORKER_SLOTS: Final = _gauge("mageflow_worker_slots", "Configured slots.", pool=POOLS)
WORKER_SLOTS_USED: Final = _gauge("mageflow_worker_slots_used", "Slots taken by live attempts.", pool=POOLS)
EVENT_LOOP_LAG: Final = _histogram(
    "mageflow_event_loop_lag_seconds", "How late the loop that runs the tasks wakes up.", LAG
)  # fmt: skip
CLUSTER_LEADER: Final = _gauge(
    "mageflow_cluster_leader", "1 on the process that exports the cluster view.", merge="max"
)
CLOCK_SKEW: Final = _gauge(
    "mageflow_clock_skew_seconds",
    "How far the worker's clock is ahead of that of Redis, at most 0.5 s wrong; below 0: behind. Absent without Redis.",
    merge="max",
)
TELEMETRY_ERRORS: Final = _counter(
    "mageflow_telemetry_errors_total", "Failures inside telemetry, none of which reached a task.", signal=SIGNALS
)
TELEMETRY_DROPPED_LABELS: Final = _counter(
    "mageflow_telemetry_dropped_label_values_total", "Label values folded to __other__.", "label"
)

METRICS: Final[tuple[Metric, ...]] = tuple(each for each in list(globals().values()) if isinstance(each, Metric))
"""Every metric, in the order of this file."""
