"""Alerts about deadlocks and locks."""

from dashboards.generator.boards.locks import mutual_wait
from dashboards.generator.queries import increase_from_zero
from dashboards.generator.rules import Alert, Thresholds

_LOCKS = "mageflow-locks"

_DEADLOCKS = increase_from_zero("mageflow_deadlocks_total", "", "10m", "600")


def deadlock_alerts(limits: Thresholds) -> tuple[Alert, ...]:
    """Alerts about runs that wait for each other in a cycle."""
    return (
        Alert(
            name="MageflowDeadlock",
            severity="warning",
            wait="0m",
            expr=f"sum by (job, lock, victim_task) ({_DEADLOCKS}) > 0",
            summary="Deadlock on {{ $labels.lock }}: an attempt of {{ $labels.victim_task }} was aborted",
            description=(
                "In ten minutes, {{ $value | humanize }} deadlocks were broken by aborting an attempt of "
                "{{ $labels.victim_task }} (job {{ $labels.job }}) that waited for {{ $labels.lock }}."
            ),
            board=_LOCKS,
            meaning="Runs waited for each other in a cycle. mageflow found the cycle and aborted one attempt.",
            causes=(
                "Two tasks take the same locks in a different order.",
                "One task takes two keys of one lock in the order of its input.",
            ),
            steps=(
                "`mageflow.deadlock.detected` in the logs has the whole cycle in order, with run ids.",
                "Take locks in the same order everywhere, and keys of one lock in sorted order.",
                "`@client.stagger_execution` on the tasks makes deadlocks rarer, but only a fixed order prevents them.",
            ),
        ),
        Alert(
            name="MageflowDeadlockStorm",
            severity="critical",
            wait="0m",
            expr=f"sum by (job) ({_DEADLOCKS}) > {limits.deadlocks_in_10m:g}",
            summary="{{ $value | humanize }} deadlocks in ten minutes in {{ $labels.job }}",
            description=(
                "{{ $value | humanize }} deadlocks were broken in job {{ $labels.job }} in ten minutes. Each one "
                "aborts an attempt, and the retry may run into the next deadlock."
            ),
            board=_LOCKS,
            meaning="Deadlocks happen more often than by chance.",
            causes=(
                "Victims retry at once and meet the same runs again.",
                "A new task takes the locks in the opposite order.",
            ),
            steps=(
                "Follow the steps of MageflowDeadlock.",
                "Give the tasks a retry backoff and a stagger window.",
                "Until then, limit their concurrency in Hatchet to one.",
            ),
        ),
        Alert(
            name="MageflowMutualWait",
            severity="critical",
            wait="2m",
            expr=mutual_wait("", "job"),
            summary="{{ $labels.waiter_task }} and {{ $labels.holder_task }} wait for each other",
            description=(
                "For two minutes, runs of {{ $labels.waiter_task }} have waited for locks that runs of "
                "{{ $labels.holder_task }} hold, and runs of {{ $labels.holder_task }} for locks that runs of "
                "{{ $labels.waiter_task }} hold (job {{ $labels.job }})."
            ),
            board=_LOCKS,
            meaning=(
                "Two different tasks wait for each other for longer than the deadlock detector needs. Either a "
                "deadlock was not broken, or both tasks contend for many keys of the same locks all the time."
            ),
            causes=(
                "The deadlock detector does not run: see MageflowDeadlockDetectorIdle.",
                "A lock is held through something that the detector cannot see.",
            ),
            steps=(
                "`/debug/locks` of the workers lists holders and waiters with run ids and trace ids.",
                "Cancel one of the runs in Hatchet. Its leases are released.",
                (
                    "This alert does not cover runs of the same task that wait for each other. They show as "
                    "*Longest wait path* of two or more."
                ),
            ),
        ),
        Alert(
            name="MageflowDeadlockDetectorIdle",
            severity="critical",
            wait="5m",
            expr=(
                "sum by (job) (mageflow_lock_waiters) > 0 unless on (job) "
                'sum by (job) (rate(mageflow_deadlock_checks_total{result=~"clean|cycle"}[5m])) > 0'
            ),
            summary="{{ $value }} lock requests of {{ $labels.job }} wait without a deadlock check",
            description=(
                "{{ $value }} lock requests wait in job {{ $labels.job }}, and no deadlock check has succeeded for "
                "five minutes."
            ),
            board=_LOCKS,
            meaning=(
                "A lock request is checked for a cycle in the round trip that queues it, and again at each renewal "
                "while it waits, every few seconds. If none of these checks succeeds, deadlocks are not found."
            ),
            causes=(
                "Redis is unavailable or rejects the scripts.",
                "The event loop of the worker is blocked.",
            ),
            steps=(
                "`mageflow.deadlock.check_failed` in the logs has the error type.",
                (
                    "Look at *Deadlock detector* on the locks board, *Redis errors* on the flows board and *Event loop "
                    "lag p99 by instance* on the overview."
                ),
            ),
        ),
    )


def lock_alerts(limits: Thresholds) -> tuple[Alert, ...]:
    """Alerts about locks that are held, waited for or lost."""
    return (
        Alert(
            name="MageflowLockWaitLong",
            severity="warning",
            wait="1m",
            expr=f"max by (job, lock, task) (mageflow_lock_oldest_wait_seconds) > {limits.lock_wait_seconds:g}",
            summary="{{ $labels.task }} has waited {{ $value | humanizeDuration }} for {{ $labels.lock }}",
            description=(
                "A run of {{ $labels.task }} (job {{ $labels.job }}) has waited {{ $value | humanizeDuration }} for "
                "{{ $labels.lock }}."
            ),
            board=_LOCKS,
            meaning="A lock request has waited much longer than a lock should be held.",
            causes=("The holder hangs.", "Too many runs wait for one key."),
            steps=(
                "*Longest holds* and *Waits by task and lock* show the holder's task, `/debug/locks` its run.",
                "Open the trace of the waiting attempt: its acquire span links to the holder's trace.",
            ),
        ),
        Alert(
            name="MageflowLockHeldLong",
            severity="warning",
            wait="1m",
            expr=f"max by (job, lock, task) (mageflow_lock_oldest_hold_seconds) > {limits.lock_hold_seconds:g}",
            summary="{{ $labels.task }} has held {{ $labels.lock }} for {{ $value | humanizeDuration }}",
            description=(
                "A run of {{ $labels.task }} (job {{ $labels.job }}) has held {{ $labels.lock }} for "
                "{{ $value | humanizeDuration }}."
            ),
            board=_LOCKS,
            meaning="Every other run that needs the lock waits for this run.",
            causes=("The holder hangs.", "The task holds the lock for more work than the lock must protect."),
            steps=(
                "`/debug/locks` shows the run and its trace id.",
                "If the run hangs, cancel it in Hatchet. Its leases are released.",
            ),
        ),
        Alert(
            name="MageflowLockLeaseLost",
            severity="critical",
            wait="0m",
            expr='sum by (job, lock) (increase(mageflow_lock_lease_renewals_total{result="lost"}[10m])) > 0',
            summary="Leases on {{ $labels.lock }} were lost while held",
            description=(
                "In the last ten minutes {{ $value | humanize }} leases on {{ $labels.lock }} (job "
                "{{ $labels.job }}) ended before the work under them did. That work was not exclusive."
            ),
            board=_LOCKS,
            meaning="Two runs may have worked under the same lock at the same time.",
            causes=(
                "The event loop of the worker was blocked for longer than the lease.",
                "Redis was unavailable, or lost writes in a failover.",
                "The process was suspended.",
            ),
            steps=(
                "`mageflow.lock.lease_lost` in the logs has the attempt.",
                "Check what that attempt wrote. If the resource checks the fencing token, it has rejected late writes.",
                "Look at *Event loop lag p99 by instance* and *Redis errors* at that time.",
            ),
        ),
        Alert(
            name="MageflowLockOrphaned",
            severity="warning",
            wait="5m",
            expr="max by (job, lock) (mageflow_locks_orphaned) > 0",
            summary="{{ $value }} leases on {{ $labels.lock }} have no owner",
            description=(
                "{{ $value }} leases on {{ $labels.lock }} (job {{ $labels.job }}) belong to workers that are gone. "
                "They have not expired for five minutes."
            ),
            board=_LOCKS,
            meaning=(
                "Workers died while they held locks. Their leases expire without any action, and that should take "
                "less than five minutes."
            ),
            causes=("Leases are very long.", "Workers are killed repeatedly, for example for lack of memory."),
            steps=(
                "`mageflow.lock.orphan_reaped` in the logs has the owners.",
                "See MageflowWorkerUnreachable for workers that die.",
            ),
        ),
    )
