"""Alerts about deadlocks and locks."""

from dashboards.generator.boards.locks import mutual_wait
from dashboards.generator.queries import grown
from dashboards.generator.rules import Alert, Thresholds

_LOCKS = "mageflow-locks"

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
