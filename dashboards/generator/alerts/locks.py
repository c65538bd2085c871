"""Alerts about deadlocks and locks."""

from dashboards.generator.queries import increase_from_zero
from dashboards.generator.rules import Alert, Thresholds

_LOCKS = "mageflow-locks"

_LOST = increase_from_zero('mageflow_lock_lease_renewals_total{result="lost"}', "", "10m", "600")
_ORPHANS = "(max by (job, lock) (mageflow_locks_orphaned) > bool 0)"
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
            name="MageflowDeadlockDetectorIdle",
            severity="critical",
            wait="5m",
            expr=(
                "sum by (job, instance) (mageflow_lock_waiters) > 0 unless on (job, instance) "
                'sum by (job, instance) (rate(mageflow_deadlock_checks_total{result=~"clean|cycle"}[5m])) > 0'
            ),
            summary="{{ $value }} lock requests of {{ $labels.instance }} wait without a deadlock check",
            description=(
                "{{ $value }} lock requests of {{ $labels.instance }} (job {{ $labels.job }}) wait, and none of its "
                "deadlock checks has succeeded for five minutes."
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
                "*Task pairs waiting on each other now* shows tasks that may be in a deadlock meanwhile.",
                "`/debug/locks` of the workers lists holders and waiters with run ids. Cancel one run of a cycle.",
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
            expr=f"sum by (job, lock) ({_LOST}) > 0",
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
                "`mageflow.lock.lease_lost` in the logs has the attempt. `loop_blocked_s`: was its event loop blocked?",
                "Check what that attempt wrote. If the resource checks the fencing token, it has rejected late writes.",
                "Look at *Event loop lag p99 by instance* and *Redis errors* at that time.",
            ),
        ),
        Alert(
            name="MageflowLockOrphaned",
            severity="warning",
            wait="0m",
            expr=f"sum_over_time({_ORPHANS}[15m:1m]) > {limits.orphaned_minutes_in_15m - 0.5:g}",
            summary="Workers that hold {{ $labels.lock }} are killed again and again",
            description=(
                "In {{ $value }} of the last 15 minutes there were leases on {{ $labels.lock }} (job "
                "{{ $labels.job }}) whose workers were gone."
            ),
            board=_LOCKS,
            meaning=(
                "Workers die while they hold locks, and it does not stop. A lease expires without any action, 15 "
                "seconds after its worker's last renewal, so the death of one worker does not raise this alert. Until "
                "then no other run gets the lock."
            ),
            causes=("Workers are killed repeatedly, for example for lack of memory.", "A task crashes its process."),
            steps=(
                "`mageflow.lock.orphan_reaped` in the logs has the owners.",
                "See MageflowWorkerUnreachable for workers that die.",
            ),
        ),
    )
