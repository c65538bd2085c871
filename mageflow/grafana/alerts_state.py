"""Alerts about deadlocks, locks, flows and processes: what they say, and what the runbook answers."""

from mageflow.grafana.locks import mutual_wait
from mageflow.grafana.promql import grown
from mageflow.grafana.rules import Alert, Thresholds

_TASK = "mageflow-task"
_LOCKS = "mageflow-locks"
_FLOWS = "mageflow-flows"
_OVERVIEW = "mageflow-overview"

_DEADLOCKS = grown("mageflow_deadlocks_total", "", "10m", "600")


def deadlock_alerts(at: Thresholds) -> tuple[Alert, ...]:
    """Runs that wait for each other in a ring."""
    return (
        Alert(
            "MageflowDeadlock", "warning", "0m",
            f"sum by (job, lock, victim_task) ({_DEADLOCKS}) > 0",
            "Deadlock on {{ $labels.lock }}: {{ $labels.victim_task }} had to give way",
            "{{ $value | humanize }} deadlocks in ten minutes in which {{ $labels.victim_task }} (job "
            "{{ $labels.job }}) waited for {{ $labels.lock }} and was chosen to give way.",
            _LOCKS,
            "Runs waited for each other in a ring. It was found and broken: one attempt was given up for it.",
            ("Two tasks take the same locks in different order.", ("One task takes two keys of one lock in the order "
             "of its input.")),
            ("`mageflow.deadlock.detected` in the logs has the whole cycle in order, with run ids.",
             "Take locks in one order everywhere, for keys of one lock: sorted.",
             "`@client.stagger_execution` on the tasks makes meetings rarer, but only the order removes them."),
        ),
        Alert(
            "MageflowDeadlockStorm", "critical", "0m",
            f"sum by (job) ({_DEADLOCKS}) > {at.deadlocks_in_10m:g}",
            "{{ $value | humanize }} deadlocks in ten minutes in {{ $labels.job }}",
            "{{ $value | humanize }} deadlocks were broken in job {{ $labels.job }} in ten minutes. Each gives up an "
            "attempt, whose retry may meet the next.",
            _LOCKS,
            "Deadlocks come faster than a design mistake that is hit by chance would explain.",
            ("Victims retry at once into the same meeting.", "A new task takes the locks the other way round."),
            ("Work through MageflowDeadlock.", "Give the tasks a retry backoff and a stagger window.",
             "Until then limit their concurrency in Hatchet to one."),
        ),
        Alert(
            "MageflowMutualWait", "critical", "2m", mutual_wait("", "job"),
            "{{ $labels.waiter_task }} and {{ $labels.holder_task }} wait for each other",
            "Runs of {{ $labels.waiter_task }} wait for locks that runs of {{ $labels.holder_task }} hold, and the "
            "other way round, for two minutes (job {{ $labels.job }}). Nothing has broken it.",
            _LOCKS,
            "Two different tasks wait for each other for longer than the detector needs. Either a deadlock is not "
            "broken, or both tasks contend for many keys of the same locks all the time.",
            ("The detector does not run: see MageflowDeadlockDetectorIdle.",
             "A lock is held through something the detector cannot see."),
            ("`/debug/locks` of the workers lists holders and waiters with run ids and trace ids.",
             "Cancel one of the runs in Hatchet; its leases are released.",
             ("Runs of one and the same task that wait for each other are not covered here: *Longest wait path* of "
             "two or more shows them.")),
        ),
        Alert(
            "MageflowDeadlockDetectorIdle", "critical", "5m",
            "sum by (job) (mageflow_lock_waiters) > 0 unless on (job) "
            'sum by (job) (rate(mageflow_deadlock_checks_total{result=~"clean|cycle"}[5m])) > 0',
            "{{ $value }} lock requests of {{ $labels.job }} wait and nobody looks for deadlocks",
            "{{ $value }} lock requests wait in job {{ $labels.job }}, and no search for deadlocks has succeeded for "
            "five minutes.",
            _LOCKS,
            "Every lock request is checked for a cycle in the round trip in which it queues, and again at each renewal "
            "while it waits, every few seconds. When none of these succeeds, what waits is not looked at.",
            ("Redis is away or refuses the scripts.", "The worker's event loop is blocked."),
            ("`mageflow.deadlock.check_failed` in the logs has the error type.",
             "*Detector* on the locks board, *Redis errors* on the flows board, *Runner loop lag* on the overview."),
        ),
    )  # fmt: skip


def lock_alerts(at: Thresholds) -> tuple[Alert, ...]:
    """Locks that are waited for, held or lost."""
    return (
        Alert(
            "MageflowLockWaitLong", "warning", "1m",
            f"max by (job, lock, task) (mageflow_lock_oldest_wait_seconds) > {at.lock_wait_seconds:g}",
            "{{ $labels.task }} has waited {{ $value | humanizeDuration }} for {{ $labels.lock }}",
            "A run of {{ $labels.task }} (job {{ $labels.job }}) has waited {{ $value | humanizeDuration }} for "
            "{{ $labels.lock }}.",
            _LOCKS,
            "A lock request waits far longer than locks should be held.",
            ("The holder hangs.", "Too many runs queue for one key."),
            ("*Longest holds* and *Waits by task and lock* name the holder's task; `/debug/locks` its run.",
             "Open the waiting attempt's trace: its acquire span links to the holder's."),
        ),
        Alert(
            "MageflowLockHeldLong", "warning", "1m",
            f"max by (job, lock, task) (mageflow_lock_oldest_hold_seconds) > {at.lock_hold_seconds:g}",
            "{{ $labels.task }} has held {{ $labels.lock }} for {{ $value | humanizeDuration }}",
            "A run of {{ $labels.task }} (job {{ $labels.job }}) has held {{ $labels.lock }} for "
            "{{ $value | humanizeDuration }}.",
            _LOCKS,
            "Everybody else who needs the lock waits for this run.",
            ("The holder hangs.", "The lock is held around more than it protects."),
            ("Find the run at `/debug/locks`, and its trace by the trace id there.",
             "Cancel the run in Hatchet if it hangs; its leases are released."),
        ),
        Alert(
            "MageflowLockLeaseLost", "critical", "0m",
            'sum by (job, lock) (increase(mageflow_lock_lease_renewals_total{result="lost"}[10m])) > 0',
            "Leases on {{ $labels.lock }} were lost while held",
            "{{ $value | humanize }} leases on {{ $labels.lock }} (job {{ $labels.job }}) ended in the last ten "
            "minutes before the work under them did: that work was not exclusive.",
            _LOCKS,
            "Two runs may have worked under the same lock at once.",
            ("The worker's event loop was blocked for longer than the lease.", ("Redis was away, or lost writes in a "
             "failover."), "The process was suspended."),
            ("`mageflow.lock.lease_lost` in the logs names the attempt.",
             "Check what it wrote: the fencing token tells late writers apart where the resource checks it.",
             "Look at *Runner loop lag* and *Redis errors* at that time."),
        ),
        Alert(
            "MageflowLockOrphaned", "warning", "5m",
            "max by (job, lock) (mageflow_locks_orphaned) > 0",
            "{{ $value }} leases on {{ $labels.lock }} have no owner",
            "{{ $value }} leases on {{ $labels.lock }} (job {{ $labels.job }}) belong to workers that are gone, and "
            "have not been reaped for five minutes.",
            _LOCKS,
            "Workers died while they held locks. Leases expire by themselves; five minutes is longer than they "
            "should take.",
            ("Leases are very long.", "Workers are killed again and again, for instance for want of memory."),
            ("`mageflow.lock.orphan_reaped` in the logs names the owners.",
             "See MageflowWorkerUnreachable for workers that die."),
        ),
    )  # fmt: skip


def flow_alerts(at: Thresholds) -> tuple[Alert, ...]:
    """Signatures, flows and callbacks that get lost."""
    return (
        Alert(
            "MageflowSignatureLoadFailing", "critical", "5m",
            'sum by (job, kind) (rate(mageflow_signature_loads_total{result!="hit"}[10m])) / '
            f"sum by (job, kind) (rate(mageflow_signature_loads_total[10m])) > {at.signature_miss_ratio:g}",
            "{{ $value | humanizePercentage }} of {{ $labels.kind }} signatures cannot be loaded",
            "{{ $value | humanizePercentage }} of the loads of {{ $labels.kind }} signatures in job "
            "{{ $labels.job }} find nothing, something invalid, or no Redis.",
            _TASK,
            "Runs arrive whose signature is gone or unreadable; they fail without running their body.",
            (("missing: the signature expired before its run came, or the workers look into another Redis, prefix or "
             "namespace than the one that signed."),
             "invalid: an incompatible version, or somebody else wrote under the key.",
             "error: Redis is away."),
            ("*Signature loads* on the task board tells which of the three it is.",
             "`mageflow.signature.missing` and `mageflow.signature.invalid` in the logs have the signature's id.",
             "For missing ones compare MAGEFLOW_SIGNATURE_TTL_ACTIVE_SECONDS with the queue wait."),
        ),
        Alert(
            "MageflowFlowStuck", "warning", "5m",
            f"max by (job, flow) (mageflow_flow_oldest_active_seconds) > {at.flow_age_seconds:g}",
            "A {{ $labels.flow }} has been open for {{ $value | humanizeDuration }}",
            "The oldest {{ $labels.flow }} of job {{ $labels.job }} that is not closed started "
            "{{ $value | humanizeDuration }} ago.",
            _FLOWS,
            "A flow does not come to its end, or really takes this long.",
            ("A step is suspended and nobody resumes it.", "A swarm was never closed.",
             "Workers for one of its tasks are missing."),
            ("*Swarm items* and *Signatures stored* show what is pending.",
             "Find the flow's trace in *Recent and slow flows*, or its last `mageflow.flow.step_done` in the logs.",
             "Raise the threshold if your flows are meant to run that long."),
        ),
        Alert(
            "MageflowCallbackFailed", "critical", "0m",
            'sum by (job, kind) (increase(mageflow_callbacks_total{result="failed"}[10m])) > 0',
            "{{ $labels.kind }} callbacks of {{ $labels.job }} failed",
            "{{ $value | humanize }} {{ $labels.kind }} callbacks of job {{ $labels.job }} could not be enqueued in "
            "the last ten minutes, or failed for good in their own task.",
            _FLOWS,
            "Work that should follow a task was not done. A callback counts as failed only when trying again cannot "
            "help: while Hatchet is away it stays in the outbox and is sent later.",
            ("The signature or flow to call back expired or was removed.",
             "The callback's task is not known to any worker.", "The callback's task itself failed."),
            ("`mageflow.callback.failed` in the logs names the target and the error type.",
             "*Enqueues by source* shows whether all enqueues fail or callbacks alone."),
        ),
    )  # fmt: skip


def process_alerts(at: Thresholds) -> tuple[Alert, ...]:
    """Processes and telemetry that fail."""
    return (
        Alert(
            "MageflowLoopBlocked", "critical", "5m",
            "histogram_quantile(0.99, sum by (job, instance, le) "
            f"(rate(mageflow_event_loop_lag_seconds_bucket[5m]))) > {at.loop_lag_seconds:g}",
            "The event loop of {{ $labels.instance }} is blocked for {{ $value | humanizeDuration }}",
            "The loop that runs the tasks of {{ $labels.instance }} (job {{ $labels.job }}) wakes up "
            "{{ $value | humanizeDuration }} late.",
            _OVERVIEW,
            "Something blocks the worker's event loop: timeouts, heartbeats, lease renewals and every other async "
            "task of the process wait for it.",
            ("A synchronous call (requests, time.sleep, a CPU-bound loop) inside an `async def` task.",
             "The process gets too little CPU."),
            ("*Where slots go* and *Heaviest tasks* for the tasks that run there.",
             "Make the task a plain `def`: it then runs in a thread.",
             "`py-spy dump` on the process shows the call that blocks."),
        ),
        Alert(
            "MageflowOrphanThreads", "warning", "10m",
            "sum by (job, task) (mageflow_task_orphan_threads) > 0",
            "{{ $value }} cancelled runs of {{ $labels.task }} still occupy threads",
            "{{ $value }} synchronous bodies of {{ $labels.task }} (job {{ $labels.job }}) go on although their "
            "attempt was cancelled or timed out.",
            _TASK,
            "Python cannot stop a thread. Each of these keeps one of the worker's threads, and may still write.",
            ("A synchronous task without timeouts on its own calls.",),
            ("Give the calls in the task timeouts shorter than the task's.",
             "Let the body ask whether it was cancelled: take the context and look at `ctx.exit_flag`.",
             "Restart the worker to be rid of them."),
        ),
        Alert(
            "MageflowWorkerUnreachable", "warning", "5m",
            "up == 0 and on (job, instance) max_over_time(mageflow_worker_info[1h]) == 1",
            "The worker at {{ $labels.instance }} does not answer",
            "{{ $labels.instance }} (job {{ $labels.job }}) was a mageflow worker within the last hour and its "
            "metrics cannot be scraped.",
            _OVERVIEW,
            "A worker is gone or hangs, or its endpoint cannot be reached.",
            ("It was stopped on purpose and is still in the scrape configuration.", "It was killed.",
             "Its host or network is gone."),
            ("Look at the process, and at its last lines of log.",
             "In Hatchet the worker shows as inactive when it is really gone; its runs are reassigned."),
        ),
        Alert(
            "MageflowClusterViewLost", "warning", "5m",
            "sum by (job) (mageflow_cluster_leader) != 1",
            "{{ $value }} workers of {{ $labels.job }} export the cluster view instead of one",
            "{{ $value }} workers of job {{ $labels.job }} say they are leader for the cluster view (stored "
            "signatures, active flows, orphaned locks). With none those panels are empty, with several they may "
            "disagree.",
            _OVERVIEW,
            "The gauges about the whole cluster are missing or doubled. Tasks are not affected.",
            ("Redis is away, so nobody holds the leader's lease.",
             "Workers with different Redis servers or prefixes are scraped under one job name."),
            ("`mageflow.cluster.leader` in the logs tells who became leader and who lost it.",
             "Give workers of separate installations separate job names."),
        ),
        Alert(
            "MageflowTelemetryErrors", "info", "15m",
            "sum by (job, signal) (rate(mageflow_telemetry_errors_total[15m])) > 0",
            "Telemetry of {{ $labels.job }} fails: {{ $labels.signal }}",
            "Recording {{ $labels.signal }} failed {{ $value | humanize }} times per second in job "
            "{{ $labels.job }}. No task is affected, but what you see has gaps.",
            _OVERVIEW,
            "mageflow caught failures inside its own telemetry.",
            ("A span processor, log processor or collector of yours raises.", "The series limit was reached."),
            ("`mageflow.telemetry.error` in the logs has the site and the error type, once a minute each.",),
        ),
        Alert(
            "MageflowLabelsFolded", "info", "0m",
            "sum by (job, label) (increase(mageflow_telemetry_dropped_label_values_total[1h])) > 0",
            "Values of the label {{ $labels.label }} were folded into __other__",
            "{{ $value | humanize }} values of {{ $labels.label }} in job {{ $labels.job }} were counted as "
            "__other__ in the last hour.",
            _OVERVIEW,
            "A label met undeclared values, or more values than it may have. Numbers are right, their split is not.",
            ("Exception classes or flow names made up at run time.", "A task that this worker does not declare."),
            ("`mageflow.telemetry.label_folded` in the logs names the label.",
             "Use fixed names; put what varies into attributes of spans."),
        ),
    )  # fmt: skip
