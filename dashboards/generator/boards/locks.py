"""Board 4: who holds what, who waits for whom, and every deadlock."""

from dashboards.generator.queries import grown, occurring
from dashboards.generator.spec import BoardSpec, PanelSpec, Query, Section, heat, lines, stat, table


def _named(expr: str, **labels: tuple[str, str]) -> str:
    """The vector with more labels, each a text in which ``$1`` stands for the value of an existing label."""
    for name, (text, source) in labels.items():
        expr = f'label_replace({expr}, "{name}", "{text}", "{source}", "(.+)")'
    return expr


_WAITS = "sum by (waiter_task, lock) (mageflow_lock_wait_edges{L}) > 0"
_HOLDS = "sum by (holder_task, lock) (mageflow_lock_wait_edges{L}) > 0"
_WAITING = "sum by (task) (" + _named("mageflow_lock_wait_edges{L}", task=("$1", "waiter_task")) + ") > 0"
_HOLDING = "group by (task) (" + _named("mageflow_lock_wait_edges{L} > 0", task=("$1", "holder_task")) + ")"

EDGES = (
    "label_join("
    + _named(
        _WAITS, source=("task:$1", "waiter_task"), target=("lock:$1", "lock"), mainstat=("waits for", "lock"),
        color=("#ff9830", "lock"),
    )
    + " or "
    + _named(
        _HOLDS, source=("lock:$1", "lock"), target=("task:$1", "holder_task"), mainstat=("held by", "lock"),
        color=("gray", "lock"),
    )
    + ', "id", ">", "source", "target")'
)  # fmt: skip
"""Edges of the wait-for graph: from a task to the lock it waits for, from a lock to the task that holds it.

Locks are nodes, as in a resource-allocation graph, because Grafana draws no edge from a task to itself and one line for
all locks between two tasks. It reads ``id``, ``source``, ``target``, ``mainstat`` and ``color`` by field name, and a
label arrives as a field under its own name in every version, which a renamed value does not. An id with a space in it
would cost the edge its arrow head, which Grafana refers to by an unquoted ``url(#id)``.
"""

NODES = (
    _named(f'count_values by (task) ("waiting", {_WAITING})', mainstat=("$1 waiting", "waiting"),
           id=("task:$1", "task"), title=("$1", "task"), color=("#ff9830", "task"))
    + " or "
    + _named(f"({_HOLDING} unless on (task) {_WAITING})", mainstat=("holds", "task"), id=("task:$1", "task"),
             title=("$1", "task"), color=("gray", "task"))
    + " or "
    + _named("group by (lock) (mageflow_lock_wait_edges{L} > 0)", mainstat=("lock", "lock"), id=("lock:$1", "lock"),
             title=("$1", "lock"), color=("#5794f2", "lock"))
)  # fmt: skip
"""Nodes of the wait-for graph: every task that waits or is waited for, every lock between them. An edge without its
node breaks the panel."""


def mutual_wait(selector: str, *more: str) -> str:
    """Pairs of different tasks that wait for each other, with the number of waits in one direction.

    A task that waits for itself is two runs that want the same lock: ordinary contention, and left out here.
    """
    pair = ", ".join((*more, "waiter_task", "holder_task"))
    waiter = ", ".join((*more, "waiter_task"))
    pairs = f"(sum by ({pair}) (mageflow_lock_wait_edges{selector}) > 0)"
    swapped = (
        f'label_replace(label_replace(label_replace({pairs}, "swap", "$1", "waiter_task", "(.+)"), '
        '"waiter_task", "$1", "holder_task", "(.+)"), "holder_task", "$1", "swap", "(.+)")'
    )
    itself = (
        f"label_replace(group by ({waiter}) (mageflow_lock_wait_edges{selector} > 0), "
        '"holder_task", "$1", "waiter_task", "(.+)")'
    )
    return f"{pairs} and on ({pair}) {swapped} unless on ({pair}) {itself}"


_WAIT_TABLE = (("waiter_task", "waiting task"), ("lock", "lock"), ("holder_task", "holding task"))

_DEADLOCKS_IN_RANGE = grown("mageflow_deadlocks_total{L}", "{S}", "$__range", "$__range_s")
_DEADLOCKS_LATELY = grown("mageflow_deadlocks_total{L}", "{S}", "$__rate_interval")

BOARD = BoardSpec(
    uid="mageflow-locks",
    title="mageflow / Locks and deadlocks",
    description="Resource locks: holders, waiters, the wait-for graph between tasks, and every deadlock broken.",
    variables=("lock",),
    sections=(
        Section(
            "Right now",
            (
                stat("Waiters", "short", "sum(mageflow_lock_waiters{L})",
                     "Lock requests that wait now.", decimals=0, empty="no locks"),
                stat("Holders", "short", "sum(mageflow_lock_holders{L})",
                     "Leases held now.", decimals=0, empty="no locks"),
                stat(
                    "Oldest wait", "s", "max(mageflow_lock_oldest_wait_seconds{L})",
                    "How long the request that waits longest has waited.",
                    steps=((60, "orange"), (300, "red")), empty="no locks",
                ),
                stat(
                    "Deadlocks in range", "short",
                    f"sum({_DEADLOCKS_IN_RANGE}) or 0 * sum(rate(mageflow_lock_acquisitions_total{{L}}[R]))",
                    "Cycles found and broken in the selected range.",
                    steps=((0.5, "red"),), instant=True, decimals=0, empty="no locks",
                ),
                stat(
                    "Orphaned", "short", "sum(max by (job, lock) (mageflow_locks_orphaned{L}))",
                    "Leases whose owner is gone and that have not expired yet. They free themselves; many of them "
                    "are workers that were killed.",
                    steps=((1, "red"),), decimals=0, empty="no locks",
                ),
                stat(
                    "Longest wait path", "short", 'max(mageflow_wait_graph_size{S,element="longest_path"})',
                    "Longest chain of runs that wait for each other, in the whole cluster. One is plain contention; "
                    "long chains are close to a cycle.",
                    steps=((3, "orange"),), decimals=0, empty="no locks",
                ),
            ),
        ),
        Section(
            "Who waits for whom",
            (
                PanelSpec(
                    "nodeGraph", "Wait-for graph",
                    "Orange arrows lead from a task to the lock (blue) it waits for, grey ones from a lock to the task "
                    "that holds it. A ring through two locks or more is a deadlock, or about to be one; arrows both "
                    "ways between one task and one lock are runs of the same task that queue.",
                    "short", (Query(EDGES, ref="edges"), Query(NODES, ref="nodes")), 12, 12,
                    instant=True, empty="nobody waits",
                ),
                table(
                    "Waits by task and lock", "short",
                    "sum by (waiter_task, lock, holder_task) (mageflow_lock_wait_edges{L}) > 0", _WAIT_TABLE, "waits",
                    "The graph as a list. Run ids and trace ids of the same waits are at /debug/locks of each worker.",
                    width=12, height=6, empty="nobody waits",
                ),
                table(
                    "Task pairs waiting on each other now", "short", mutual_wait("{S}"),
                    (("waiter_task", "waiting task"), ("holder_task", "holding task")), "waits",
                    "Two different tasks, each of which waits for the other. Filled for more than a moment, it is a "
                    "deadlock that was not broken.",
                    width=6, height=6, steps=((1, "red"),), empty="none",
                ),
                table(
                    "Longest holds", "s", "max by (lock, task) (mageflow_lock_oldest_hold_seconds{L}) > 0",
                    (("lock", "lock"), ("task", "task")), "held for",
                    "Which task holds which lock, and for how long already.",
                    width=6, height=6, steps=((300, "orange"),), empty="nothing is held",
                ),
            ),
        ),
        Section(
            "Waiting and holding",
            (
                lines(
                    "Wait p50 / p95 by lock", "s",
                    [
                        Query("histogram_quantile(0.5, sum by (le, lock) "
                              "(rate(mageflow_lock_wait_seconds_bucket{L}[R])))", "{{lock}} p50"),
                        Query("histogram_quantile(0.95, sum by (le, lock) "
                              "(rate(mageflow_lock_wait_seconds_bucket{L}[R])))", "{{lock}} p95"),
                    ],
                    "How long requests waited, granted or not. Exemplars open the trace of a waiting attempt, which "
                    "links to the holder's.",
                    drill="lock",
                ),
                heat("Wait", "s", "sum by (le) (increase(mageflow_lock_wait_seconds_bucket{L}[R]))",
                     "The whole distribution of waits; the lowest row is requests that were granted at once."),
                lines(
                    "Hold p95", "s",
                    [Query("histogram_quantile(0.95, sum by (le, lock) "
                           "(rate(mageflow_lock_hold_seconds_bucket{L}[R])))", "{{lock}}")],
                    "How long locks are held. Waits cannot be shorter than holds: shorten these first.",
                    width=8, drill="lock",
                ),
                lines(
                    "Mean held at once", "short",
                    [Query("sum by (lock) (rate(mageflow_lock_hold_seconds_sum{L}[R]))", "{{lock}}")],
                    "Mean number of leases held at the same time, from holds that ended.",
                    width=8, drill="lock",
                ),
                lines(
                    "Contended share", "percentunit",
                    [Query('1 - sum by (lock) (rate(mageflow_lock_wait_seconds_bucket{L,le="0.01"}[R])) / '
                           "sum by (lock) (rate(mageflow_lock_wait_seconds_count{L}[R]))", "{{lock}}")],
                    "Share of requests that waited more than 10 ms. High: stagger the tasks that use this lock.",
                    width=8, drill="lock", maximum=1,
                ),
            ),
        ),
        Section(
            "Outcomes and deadlocks",
            (
                lines(
                    "Acquisitions by outcome", "ops",
                    [Query(occurring("mageflow_lock_acquisitions_total{L}", "lock", "outcome"),
                           "{{lock}} {{outcome}}")],
                    "How lock requests ended.", width=8, stacked=True, drill="lock",
                ),
                lines(
                    "Lease renewals", "ops",
                    [Query("sum by (result) (rate(mageflow_lock_lease_renewals_total{L}[R]))", "{{result}}")],
                    "Renewals of leases that are held. lost: the work under the lock was no longer exclusive.",
                    width=8,
                ),
                lines(
                    "Deadlocks by victim", "short",
                    [Query(f"round(sum by (victim_task, lock, resolution) ({_DEADLOCKS_LATELY})) > 0",
                           "{{victim_task}} on {{lock}} {{resolution}}")],
                    "Cycles broken, by the task that had to give way and what became of it.",
                    width=8, bars=True, decimals=0, empty="no deadlocks",
                ),
                lines(
                    "Longest cycle", "short",
                    [Query("histogram_quantile(1, sum by (le) (rate(mageflow_deadlock_cycle_length_bucket{S}[R])))",
                           "members")],
                    "How many runs the longest cycle had. Two is a wrong order of two locks, more a design to redraw.",
                    empty="no deadlocks",
                ),
                lines(
                    "Detector", "ops",
                    [
                        Query("sum by (result) (rate(mageflow_deadlock_checks_total{S}[R]))", "{{result}}"),
                        Query("histogram_quantile(0.99, sum by (le) "
                              "(rate(mageflow_deadlock_check_duration_seconds_bucket{S}[R])))", "check p99", unit="s",
                              dashed=True),
                    ],
                    "Searches for cycles per second (as a request queues, and again while it waits) and how long one "
                    "takes. error: the round trip failed.",
                ),
            ),
        ),
    ),
)  # fmt: skip
