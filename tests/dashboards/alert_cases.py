"""One case per alert: the incident it fires on, its labels and value, and the healthy state it stays quiet in.

Series are in promtool's notation, one sample per minute: ``0+6x30`` increases by 6 per minute.
"""

from dataclasses import dataclass, field

Series = tuple[tuple[str, str], ...]

W = 'job="payments-workers", instance="10.0.0.7:18001"'
"""Target labels of one worker. The job name is arbitrary."""


@dataclass(frozen=True, slots=True)
class Case:
    """The incident and the healthy state of one alert."""

    fires: Series
    quiet: Series
    labels: dict[str, str]
    value: str = ""
    """The rendered text of ``{{ $value ... }}``."""
    at: str = "30m"
    also: tuple[dict[str, str], ...] = field(default=())
    """Other label sets that fire at the same time."""
    quiet_at: str = ""


def runs(task: str, outcome: str, values: str) -> tuple[str, str]:
    return f'mageflow_task_runs_total{{{W}, task="{task}", outcome="{outcome}"}}', values


def gauge(name: str, labels: str, values: str) -> tuple[str, str]:
    return f"{name}{{{W}, {labels}}}" if labels else f"{name}{{{W}}}", values


def buckets(name: str, labels: str, per_minute: dict[str, int]) -> Series:
    inner = f"{labels}, " if labels else ""
    return tuple((f'{name}_bucket{{{W}, {inner}le="{le}"}}', f"0+{n}x30") for le, n in per_minute.items())


def edge(waiter: str, holder: str, lock: str, value: int) -> tuple[str, str]:
    return gauge(
        "mageflow_lock_wait_edges", f'waiter_task="{waiter}", holder_task="{holder}", lock="{lock}"', f"{value}x30"
    )


def extensions(result: str, values: str) -> tuple[str, str]:
    return gauge("mageflow_timeout_extensions_total", f'task="sync", reason="stagger", result="{result}"', values)


def loads(result: str, values: str) -> tuple[str, str]:
    return gauge("mageflow_signature_loads_total", f'kind="task", result="{result}"', values)


DEADLOCKS = 'lock="account", victim_task="pay", resolution="victim_retried"'
JOB = {"job": "payments-workers"}
TASK = {**JOB, "task": "pay"}

CASES: dict[str, Case] = {
    "MageflowTaskErrorRatio": Case(
        (runs("pay", "succeeded", "0+48x30"), runs("pay", "failed", "0+12x30")),
        # Many retries and cancellations do not count; one failure of a rare task is not an incident.
        (runs("pay", "succeeded", "0+60x30"), runs("pay", "retried", "0+60x30"), runs("pay", "cancelled", "0+60x30"),
         runs("rare", "succeeded", "0x30"), runs("rare", "failed", "0x10 1x20")),
        TASK, "80%",
    ),
    "MageflowErrorBudgetBurn": Case(
        (runs("pay", "succeeded", "0+48x30"), runs("pay", "timed_out", "0+12x30")),
        # The errors are over: bad in the last hour, good in the last five minutes.
        (runs("pay", "succeeded", "0+40x15 600+60x15"), runs("pay", "failed", "0+20x15 300x15")),
        TASK, "20%",
    ),
    "MageflowQueueWaitHigh": Case(
        buckets("mageflow_task_queue_wait_seconds", 'task="pay"', {"60.0": 0, "120.0": 60, "+Inf": 60}),
        buckets("mageflow_task_queue_wait_seconds", 'task="pay"', {"1.0": 60, "60.0": 60, "120.0": 60, "+Inf": 60}),
        TASK, "1m 57s",
    ),
    "MageflowSlotsSaturated": Case(
        (gauge("mageflow_worker_slots_used", 'pool="default"', "10x30"),
         gauge("mageflow_worker_slots", 'pool="default"', "10x30")),
        (gauge("mageflow_worker_slots_used", 'pool="default"', "9x30"),
         gauge("mageflow_worker_slots", 'pool="default"', "10x30"),
         # A pool without slots gives 0 / 0.
         gauge("mageflow_worker_slots_used", 'pool="durable"', "0x30"),
         gauge("mageflow_worker_slots", 'pool="durable"', "0x30")),
        {**JOB, "pool": "default"}, "100%",
    ),
    "MageflowStaggerHogsSlots": Case(
        (gauge("mageflow_tasks_in_flight", 'task="a", phase="stagger"', "5x30"),
         gauge("mageflow_tasks_in_flight", 'task="b", phase="stagger"', "3x30"),
         gauge("mageflow_worker_slots", 'pool="default"', "10x30")),
        (gauge("mageflow_tasks_in_flight", 'task="a", phase="stagger"', "5x30"),
         gauge("mageflow_tasks_in_flight", 'task="a", phase="running"', "5x30"),
         gauge("mageflow_worker_slots", 'pool="default"', "10x30")),
        JOB, "80%",
    ),
    "MageflowTimeoutExtensionFailing": Case(
        (extensions("ok", "0+3x30"), extensions("error", "0+1x30")),
        (extensions("ok", "0+3x30"), extensions("error", "7x30")),
        JOB, "25%",
    ),
    "MageflowTasksNearTimeout": Case(
        (gauge("mageflow_tasks_near_timeout", 'task="pay"', "2x30"),),
        # Near its timeout for less than five minutes.
        (gauge("mageflow_tasks_near_timeout", 'task="pay"', "0x10 1x3 0x17"),),
        TASK, "2",
    ),
    "MageflowTaskTimeouts": Case(
        (runs("pay", "timed_out", "0+1x30"),),
        (runs("pay", "timed_out", "0x20 1x10"), runs("pay", "failed", "0+9x30")),
        TASK, "15",
    ),
    "MageflowDeadlock": Case(
        (gauge("mageflow_deadlocks_total", DEADLOCKS, "0+1x30"),),
        (gauge("mageflow_deadlocks_total", DEADLOCKS, "4x30"),),
        {**JOB, "lock": "account", "victim_task": "pay"}, "10",
    ),
    "MageflowDeadlockStorm": Case(
        (gauge("mageflow_deadlocks_total", DEADLOCKS, "0+1x30"),),
        (gauge("mageflow_deadlocks_total", DEADLOCKS, "0x25 1 2 3 3 3"),),
        JOB, "10",
    ),
    "MageflowMutualWait": Case(
        (edge("pay", "ship", "account", 1), edge("ship", "pay", "stock", 2)),
        # Runs of one task that wait for each other are contention; so is a wait in one direction.
        (edge("pay", "pay", "account", 5), edge("pay", "ship", "stock", 1), edge("pay", "bill", "account", 1),
         edge("ship", "pay", "stock", 0)),
        {**JOB, "waiter_task": "pay", "holder_task": "ship"},
        also=({**JOB, "waiter_task": "ship", "holder_task": "pay"},),
    ),
    "MageflowDeadlockDetectorIdle": Case(
        (
            gauge("mageflow_lock_waiters", 'lock="account", task="pay"', "2x30"),
            gauge("mageflow_deadlock_checks_total", 'result="clean"', "40x30"),
            gauge("mageflow_deadlock_checks_total", 'result="error"', "0+30x30"),
        ),
        (
            gauge("mageflow_lock_waiters", 'lock="account", task="pay"', "2x30"),
            gauge("mageflow_deadlock_checks_total", 'result="clean"', "0+1x30"),
        ),
        JOB,
        "2",
    ),
    "MageflowLockWaitLong": Case(
        (gauge("mageflow_lock_oldest_wait_seconds", 'lock="account", task="pay"', "400x30"),),
        (gauge("mageflow_lock_oldest_wait_seconds", 'lock="account", task="pay"', "299x30"),),
        {**TASK, "lock": "account"}, "6m 40s",
    ),
    "MageflowLockHeldLong": Case(
        (gauge("mageflow_lock_oldest_hold_seconds", 'lock="account", task="pay"', "3600x30"),),
        (gauge("mageflow_lock_oldest_hold_seconds", 'lock="account", task="pay"', "1700x30"),),
        {**TASK, "lock": "account"}, "1h 0m 0s",
    ),
    "MageflowLockLeaseLost": Case(
        (gauge("mageflow_lock_lease_renewals_total", 'lock="account", result="lost"', "0+1x30"),),
        (gauge("mageflow_lock_lease_renewals_total", 'lock="account", result="ok"', "0+60x30"),
         gauge("mageflow_lock_lease_renewals_total", 'lock="account", result="lost"', "3x30")),
        {**JOB, "lock": "account"}, "10",
    ),
    "MageflowLockOrphaned": Case(
        (gauge("mageflow_locks_orphaned", 'lock="account"', "2x30"),),
        # Orphaned leases that expire in time.
        (gauge("mageflow_locks_orphaned", 'lock="account"', "0x10 2x2 0x18"),),
        {**JOB, "lock": "account"}, "2",
    ),
    "MageflowSignatureLoadFailing": Case(
        (loads("hit", "0+9x30"), loads("missing", "0+1x30"), loads("invalid", "0x30")),
        (loads("hit", "0+99x30"), loads("missing", "0+1x30"), loads("error", "0x30")),
        {**JOB, "kind": "task"}, "10%",
    ),
    "MageflowFlowStuck": Case(
        (gauge("mageflow_flow_oldest_active_seconds", 'flow="chain"', "30000x30"),),
        (gauge("mageflow_flow_oldest_active_seconds", 'flow="chain"', "0+60x30"),),
        {**JOB, "flow": "chain"}, "8h 20m 0s",
    ),
    "MageflowCallbackFailed": Case(
        (gauge("mageflow_callbacks_total", 'kind="error", result="failed"', "0+1x30"),),
        (gauge("mageflow_callbacks_total", 'kind="error", result="enqueued"', "0+60x30"),
         gauge("mageflow_callbacks_total", 'kind="error", result="failed"', "2x30")),
        {**JOB, "kind": "error"}, "10",
    ),
    "MageflowLoopBlocked": Case(
        buckets("mageflow_event_loop_lag_seconds", "", {"1.0": 0, "2.5": 60, "+Inf": 60}),
        buckets("mageflow_event_loop_lag_seconds", "", {"0.01": 60, "1.0": 60, "2.5": 60, "+Inf": 60}),
        {**JOB, "instance": "10.0.0.7:18001"}, "2.485s",
    ),
    "MageflowOrphanThreads": Case(
        (gauge("mageflow_task_orphan_threads", 'task="pay"', "1x30"),),
        (gauge("mageflow_task_orphan_threads", 'task="pay"', "0x10 1x5 0x15"),),
        TASK, "1",
    ),
    "MageflowWorkerUnreachable": Case(
        (gauge("up", "", "1x10 0x20"), gauge("mageflow_worker_info", 'worker="w", version="1"', "1x10 _x20")),
        # Another program that is down, and a port on which no worker was ever seen.
        (gauge("up", "", "0x30"), ('mageflow_worker_info{job="payments-workers", instance="10.0.0.8:18001"}', "1x30"),
         ('up{job="payments-workers", instance="10.0.0.8:18001"}', "1x30")),
        {**JOB, "instance": "10.0.0.7:18001"},
    ),
    "MageflowClusterViewLost": Case(
        (gauge("mageflow_cluster_leader", "", "0x30"),
         ('mageflow_cluster_leader{job="payments-workers", instance="10.0.0.8:18001"}', "0x30")),
        (gauge("mageflow_cluster_leader", "", "1x10 0x20"),
         ('mageflow_cluster_leader{job="payments-workers", instance="10.0.0.8:18001"}', "0x11 1x19")),
        JOB, "0",
    ),
    "MageflowTelemetryErrors": Case(
        (gauge("mageflow_telemetry_errors_total", 'signal="traces"', "0+6x45"),),
        (gauge("mageflow_telemetry_errors_total", 'signal="traces"', "3x45"),),
        {**JOB, "signal": "traces"}, "100m", at="45m",
    ),
    "MageflowLabelsFolded": Case(
        (gauge("mageflow_telemetry_dropped_label_values_total", 'label="exception"', "0+1x90"),),
        (gauge("mageflow_telemetry_dropped_label_values_total", 'label="exception"', "5x90"),),
        {**JOB, "label": "exception"}, "60", at="90m",
    ),
}  # fmt: skip
