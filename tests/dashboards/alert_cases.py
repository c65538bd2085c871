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


WORKER = f'mageflow_worker_info{{{W}, worker="w"}}', "1x30"


IN_FLIGHT = f'mageflow_tasks_in_flight{{{W}, task="pay", phase="running"}}', "2x30"


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
INSTANCE = {**JOB, "instance": "10.0.0.7:18001"}
TASK = {**JOB, "task": "pay"}

FLOW = 'flow="chain", flow_name="nightly"'
FLOW_ENDED = f'{FLOW}, outcome="succeeded"'

CASES: dict[str, Case] = {
    "MageflowErrorBudgetBurn": Case(
        (runs("pay", "succeeded", "0+48x60"), runs("pay", "timed_out", "0+12x60")),
        # A total failure of five minutes, half an hour ago and now. Many retries and cancellations do not count.
        (runs("pay", "succeeded", "0+60x300 18000x5 18000+60x30 19800x5"),
         runs("pay", "failed", "0x300 0+60x5 300x30 300+60x5"),
         runs("pay", "retried", "0+60x400"), runs("pay", "cancelled", "0+60x400")),
        TASK, "20%", at="1h", quiet_at="5h42m",
    ),
    "MageflowErrorBudgetBurnSlow": Case(
        (runs("pay", "succeeded", "0+57x720"), runs("pay", "failed", "0+3x720")),
        # A total failure of ten minutes in half a day, and a share of failures that the objective allows.
        (runs("pay", "succeeded", "0+60x600 36000x10 36000+60x110"), runs("pay", "failed", "0x600 0+60x10 600x110"),
         runs("ship", "succeeded", "0+199x720"), runs("ship", "failed", "0+1x720")),
        TASK, "5%", at="12h",
    ),
    "MageflowTaskOnlyFails": Case(
        (runs("pay", "failed", "0x60 1x600 2x600"), runs("pay", "succeeded", "0x1260")),
        # One failure of a rare task, and two beside a success.
        (runs("pay", "failed", "0x60 1x600 1x600"), runs("pay", "succeeded", "0x1260"),
         runs("ship", "failed", "0x60 1x600 2x600"), runs("ship", "succeeded", "0x30 1x1230")),
        TASK, "2", at="20h",
    ),
    "MageflowQueueWaitHigh": Case(
        buckets("mageflow_task_queue_wait_seconds", 'task="pay"', {"60.0": 0, "120.0": 60, "+Inf": 60}),
        buckets("mageflow_task_queue_wait_seconds", 'task="pay"', {"1.0": 60, "60.0": 60, "120.0": 60, "+Inf": 60}),
        TASK, "1m 57s",
    ),
    "MageflowRunsWaitLong": Case(
        # A follower, and the leader before it, export nothing of this.
        (gauge("mageflow_task_oldest_waiting_seconds", 'task="pay"', "0+60x30"),),
        (gauge("mageflow_task_oldest_waiting_seconds", 'task="pay"', "0x10 290x10 400x3 0x7"),),
        TASK, "30m 0s",
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
        # One refusal, which is the only extension of the last minutes.
        (extensions("ok", "3x30"), extensions("error", "7x25 8x5")),
        JOB, "25%",
    ),
    "MageflowTasksNearTimeout": Case(
        (gauge("mageflow_tasks_near_timeout", 'task="pay"', "2x30"), IN_FLIGHT),
        # Most are near their timeout for less than five minutes, and one of many always is.
        (gauge("mageflow_tasks_near_timeout", 'task="pay"', "1x10 2x3 1x17"), IN_FLIGHT),
        TASK, "100%",
    ),
    "MageflowTaskTimeouts": Case(
        (runs("pay", "timed_out", "0+1x30"),),
        # One timeout, and some of a busy task: fewer than its objective allows.
        (runs("pay", "timed_out", "0x20 1x10"), runs("pay", "failed", "0+9x30"),
         runs("ship", "timed_out", "0+1x30"), runs("ship", "succeeded", "0+600x30")),
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
        INSTANCE,
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
        # A worker is killed every other minute.
        (gauge("mageflow_locks_orphaned", 'lock="account"', "2 0 " * 15),),
        # One worker was killed; its leases expire in time.
        (gauge("mageflow_locks_orphaned", 'lock="account"', "0x18 2x2 0x10"),),
        {**JOB, "lock": "account"}, "7",
    ),
    "MageflowSignatureLoadFailing": Case(
        (loads("hit", "0+9x30"), loads("missing", "0+1x30"), loads("invalid", "0x30")),
        # One in a hundred; and one, which is the only load of the last minutes.
        (loads("hit", "0+99x30"), loads("missing", "0+1x30"), loads("error", "0x30"),
         gauge("mageflow_signature_loads_total", 'kind="chain", result="missing"', "0x22 1x8")),
        {**JOB, "kind": "task"}, "10%",
    ),
    "MageflowFlowStuck": Case(
        (gauge("mageflow_flow_oldest_active_seconds", 'flow="chain"', "30000x30"),),
        (gauge("mageflow_flow_oldest_active_seconds", 'flow="chain"', "0+60x30"),),
        {**JOB, "flow": "chain"}, "8h 20m 0s",
    ),
    "MageflowSenderMissing": Case(
        (gauge("mageflow_flows_finished_total", FLOW_ENDED, "0+1x30"),
         gauge("mageflow_flows_started_total", FLOW, "0x30")),
        # A sender that Prometheus has found after its last start; few flows; many, long ago.
        (gauge("mageflow_flows_finished_total", FLOW_ENDED, "0+1x30"),
         gauge("mageflow_flows_started_total", FLOW, "_x10 30x20"),
         gauge("mageflow_flows_finished_total", 'flow="swarm", flow_name="few", outcome="failed"', "0x20 0+1x9"),
         gauge("mageflow_flows_finished_total", 'flow="swarm", flow_name="old", outcome="failed"', "500x30")),
        {"flow": "chain", "flow_name": "nightly"}, "30",
    ),
    "MageflowCallbackFailed": Case(
        (gauge("mageflow_callbacks_total", 'kind="error", result="failed"', "0+1x30"),),
        (gauge("mageflow_callbacks_total", 'kind="error", result="enqueued"', "0+60x30"),
         gauge("mageflow_callbacks_total", 'kind="error", result="failed"', "2x30")),
        {**JOB, "kind": "error"}, "10",
    ),
    "MageflowLoopBlocked": Case(
        (WORKER, *buckets("mageflow_event_loop_lag_seconds", "", {"1.0": 0, "2.5": 60, "+Inf": 60})),
        # A healthy worker, one that was blocked for a minute, and a program without a loop that runs tasks.
        (WORKER, *buckets("mageflow_event_loop_lag_seconds", "", {"0.01": 60, "1.0": 60, "2.5": 60, "+Inf": 60}),
         ('mageflow_event_loop_lag_seconds_count{job="web", instance="10.0.0.9:80"}', "0x30"),
         ('mageflow_worker_info{job="w", instance="10.0.0.8:1"}', "1x30"),
         ('mageflow_event_loop_lag_seconds_count{job="w", instance="10.0.0.8:1"}', "0+60x26 1560 1560+60x4")),
        INSTANCE,
    ),
    "MageflowOrphanThreads": Case(
        (gauge("mageflow_task_orphan_threads", 'task="pay"', "1x30"),),
        (gauge("mageflow_task_orphan_threads", 'task="pay"', "0x10 1x5 0x15"),),
        TASK, "1",
    ),
    "MageflowWorkerUnreachable": Case(
        (gauge("up", "", "1x10 0x20"), gauge("mageflow_worker_info", 'worker="w", version="1"', "1x10 _x20")),
        # Another program that is down, a port on which no worker was ever seen, one failed scrape, a target that
        # discovery removed after a clean stop, and a fixed list of targets.
        (gauge("up", "", "0x30"),
         ('up{job="w", instance="a:1"}', "1x24 0 1x5"), ('mageflow_worker_info{job="w", instance="a:1"}', "1x24 _ 1x5"),
         ('up{job="w", instance="b:1"}', "1x20 0 _x9"), ('mageflow_worker_info{job="w", instance="b:1"}', "1x20 _x10"),
         ('up{job="w", instance="c:1", discovery="fixed"}', "1x20 0x10"),
         ('mageflow_worker_info{job="w", instance="c:1", discovery="fixed"}', "1x20 _x10"),
         ('mageflow_worker_info{job="payments-workers", instance="10.0.0.8:18001"}', "1x30"),
         ('up{job="payments-workers", instance="10.0.0.8:18001"}', "1x30")),
        {**JOB, "instance": "10.0.0.7:18001"},
    ),
    "MageflowClusterViewLost": Case(
        (gauge("mageflow_cluster_leader", "", "0x30"),
         ('mageflow_cluster_leader{job="payments-workers", instance="10.0.0.8:18001"}', "0x30")),
        # The leader changes; another job shares the Redis and has none; and two installations have one each.
        (gauge("mageflow_cluster_leader", "", "1x10 0x20"),
         ('mageflow_cluster_leader{job="payments-workers", instance="10.0.0.8:18001"}', "0x13 1x17"),
         ('mageflow_cluster_leader{job="web", instance="10.0.0.9:80"}', "0x30"),
         ('mageflow_cluster_leader{job="reports", instance="10.0.0.10:18001"}', "1x30")),
        {},
    ),
    "MageflowTelemetryErrors": Case(
        (gauge("mageflow_telemetry_errors_total", 'signal="traces"', "0+6x45"),),
        (gauge("mageflow_telemetry_errors_total", 'signal="traces"', "3x45"),),
        {**JOB, "signal": "traces"}, "100m", at="45m",
    ),
    "MageflowSeriesLimitReached": Case(
        (gauge("mageflow_telemetry_dropped_label_values_total", 'label="__series__"', "0+1x90"),),
        # Long ago, and values of labels that were folded.
        (gauge("mageflow_telemetry_dropped_label_values_total", 'label="__series__"', "5x90"),
         gauge("mageflow_telemetry_dropped_label_values_total", 'label="exception"', "0+1x90")),
        INSTANCE, "60", at="90m",
    ),
    "MageflowLabelsFolded": Case(
        (gauge("mageflow_telemetry_dropped_label_values_total", 'label="exception"', "0+1x90"),),
        (gauge("mageflow_telemetry_dropped_label_values_total", 'label="exception"', "5x90"),),
        {**JOB, "label": "exception"}, "60", at="90m",
    ),
}  # fmt: skip
