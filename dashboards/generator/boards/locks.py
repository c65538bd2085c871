"""Board 4, locks and deadlocks: holders, waiters, the wait-for graph, and deadlocks."""

from dashboards.generator.log_queries import lines_with, one_row_per_line
from dashboards.generator.queries import counts, highest, in_range, quantile, quantile_of_all, rate_of_active, recent
from dashboards.generator.spec import BoardSpec, PanelSpec, Query, Section, heat, lines, logs, stat, table
from mageflow.telemetry.names import events, traces


def _with_labels(expr: str, **labels: tuple[str, str]) -> str:
    """Add labels to a vector. Each has a text and a source label, whose value replaces ``$1`` in the text."""
    for name, (text, source) in labels.items():
        expr = f'label_replace({expr}, "{name}", "{text}", "{source}", "(.+)")'
    return expr


_MOST_HELD = "sum by (lock) (increase(mageflow_lock_hold_seconds_sum{L}[$__range] @ end()))"
_MOST_WAITED = "sum by (lock) (increase(mageflow_lock_wait_seconds_sum{L}[$__range] @ end()))"

_WAITS = "sum by (waiter_task, lock) (mageflow_lock_wait_edges{L}) > 0"
_HOLDS = "sum by (holder_task, lock) (mageflow_lock_wait_edges{L}) > 0"
_WAITING = "sum by (task) (" + _with_labels("mageflow_lock_wait_edges{L}", task=("$1", "waiter_task")) + ") > 0"
_HOLDING = "group by (task) (" + _with_labels("mageflow_lock_wait_edges{L} > 0", task=("$1", "holder_task")) + ")"

EDGES = (
    "label_join("
    + _with_labels(
        _WAITS, source=("task:$1", "waiter_task"), target=("lock:$1", "lock"), mainstat=("waits for", "lock"),
        color=("#ff9830", "lock"),
    )
    + " or "
    + _with_labels(
        _HOLDS, source=("lock:$1", "lock"), target=("task:$1", "holder_task"), mainstat=("held by", "lock"),
        color=("gray", "lock"),
    )
    + ', "id", ">", "source", "target")'
)  # fmt: skip
"""Edges of the wait-for graph: from a task to the lock it waits for, and from a lock to the task that holds it.

Locks are nodes, as in a resource-allocation graph, because Grafana draws no edge from a task to itself, and only one
line for all locks between two tasks. Grafana reads the fields ``id``, ``source``, ``target``, ``mainstat`` and
``color`` by name. A label becomes a field with its own name in every version of Grafana, so each of these is a label.
An id contains no space: Grafana refers to the arrow head by ``url(#id)`` without quotes, and a space would break that.
"""

NODES = (
    _with_labels(f'count_values by (task) ("waiting", {_WAITING})', mainstat=("$1 waiting", "waiting"),
                 id=("task:$1", "task"), title=("$1", "task"), color=("#ff9830", "task"))
    + " or "
    + _with_labels(f"({_HOLDING} unless on (task) {_WAITING})", mainstat=("holds", "task"), id=("task:$1", "task"),
                   title=("$1", "task"), color=("gray", "task"))
    + " or "
    + _with_labels("group by (lock) (mageflow_lock_wait_edges{L} > 0)", mainstat=("lock", "lock"),
                   id=("lock:$1", "lock"), title=("$1", "lock"), color=("#5794f2", "lock"))
)  # fmt: skip
"""Nodes of the wait-for graph: every task that waits or is waited for, and every lock between them.

An edge without its node breaks the panel.
"""


def mutual_wait(selector: str, *more: str) -> str:
    """Pairs of different tasks that wait for each other, with the number of waits in one direction.

    A task that waits for itself is left out: these are two runs that want the same lock, which is ordinary contention.

    Args:
        selector: Label matchers in braces; may be empty.
        more: Labels to group by beside the two tasks.
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


_DEADLOCKS_IN_RANGE = in_range("mageflow_deadlocks_total{L}")

_RIGHT_NOW = Section(
    "Right now",
    (
        stat("Waiters", "short", "sum(mageflow_lock_waiters{L})",
             "Lock requests that wait now.", decimals=0, empty="no locks"),
        stat("Holders", "short", "sum(mageflow_lock_holders{L})",
             "Leases held now.", decimals=0, empty="no locks"),
        stat(
            "Oldest wait", "s", "max(mageflow_lock_oldest_wait_seconds{L})",
            "Waiting time of the lock request that has waited longest.",
            steps=((60, "orange"), (300, "red")), empty="no locks",
        ),
        stat(
            "Deadlocks in range", "short",
            f"sum({_DEADLOCKS_IN_RANGE}) or 0 * sum(rate(mageflow_lock_acquisitions_total{{L}}[R]))",
            "Deadlocks found and broken in the selected time range.",
            steps=((0.5, "red"),), instant=True, decimals=0, empty="no locks",
        ),
        stat(
            "Orphaned leases", "short", "sum(max by (job, lock) (mageflow_locks_orphaned{L}))",
            "Leases whose owner is gone and that have not expired yet. They expire without any action. Many of them "
            "mean that workers were killed.",
            steps=((1, "red"),), decimals=0, empty="no locks",
        ),
        stat(
            "Longest wait path", "short", 'max(mageflow_wait_graph_size{S,element="longest_path"})',
            "Longest chain of runs that wait for each other, in the whole cluster. One is ordinary contention; a long "
            "chain is close to a cycle.",
            steps=((3, "orange"),), decimals=0, empty="no locks",
        ),
    ),
)  # fmt: skip

_WAIT_COLUMNS = (("waiter_task", "waiting task"), ("lock", "lock"), ("holder_task", "holding task"))

_GRAPH = Section(
    "Who waits for whom",
    (
        PanelSpec(
            "nodeGraph", "Wait-for graph",
            "Orange arrows lead from a task to the lock (blue) it waits for, grey arrows from a lock to the task that "
            "holds it. A cycle through two or more locks is a deadlock or may become one. Arrows in both directions "
            "between one task and one lock are runs of the same task that wait for each other.",
            "short", (Query(EDGES, ref="edges"), Query(NODES, ref="nodes")), 12, 12,
            instant=True, empty="no waits",
        ),
        table(
            "Waits by task and lock", "short",
            "sum by (waiter_task, lock, holder_task) (mageflow_lock_wait_edges{L}) > 0", _WAIT_COLUMNS, "waits",
            "The graph as a list. /debug/locks of each worker has the run ids and trace ids of these waits.",
            width=12, height=6, empty="no waits",
        ),
        table(
            "Task pairs waiting on each other now", "short", mutual_wait("{S}"),
            (("waiter_task", "waiting task"), ("holder_task", "holding task")), "waits",
            "Pairs of different tasks that wait for each other. A pair that stays is a deadlock that was not broken.",
            width=6, height=6, steps=((1, "red"),), empty="none",
        ),
        table(
            "Longest holds", "s", "max by (lock, task) (mageflow_lock_oldest_hold_seconds{L}) > 0",
            (("lock", "lock"), ("task", "task")), "held for",
            "Which task holds which lock, and since when.",
            width=6, height=6, steps=((300, "orange"),), empty="nothing is held",
        ),
    ),
)  # fmt: skip

_WAITING_AND_HOLDING = Section(
    "Waiting and holding",
    (
        lines(
            "Wait p50 / p95 by lock", "s",
            [
                Query(quantile(0.5, "mageflow_lock_wait_seconds_bucket{L}", "lock"), "{{lock}} p50"),
                Query(quantile(0.95, "mageflow_lock_wait_seconds_bucket{L}", "lock"), "{{lock}} p95"),
            ],
            "How long requests waited, granted or not.",
            drill="lock", has_exemplars=False,
        ),
        heat("Wait", "s", "mageflow_lock_wait_seconds_bucket", "{L}",
             "Distribution of waits. The lowest row is requests that were granted at once. Dots open the trace of a "
             "waiting attempt, which links to the holder's trace."),
        lines(
            "Hold p95", "s",
            [Query(highest(quantile(0.95, "mageflow_lock_hold_seconds_bucket{L}", "lock"), "lock", _MOST_HELD),
                   "{{lock}}")],
            "How long locks are held. Long holds cause long waits, so shorten the holds first. Of many locks, the "
            "eight that were held most in the visible range.",
            width=8, drill="lock",
        ),
        lines(
            "Mean held at once", "short",
            [Query(highest("sum by (lock) (rate(mageflow_lock_hold_seconds_sum{L}[R]))", "lock", _MOST_HELD),
                   "{{lock}}")],
            "Mean number of leases held at the same time, computed from holds that have ended. The same eight locks.",
            width=8, drill="lock",
        ),
        lines(
            "Contended share", "percentunit",
            [Query(highest("1 - sum by (lock) (" + recent('mageflow_lock_wait_seconds_bucket{L,le="0.01"}') + ") / "
                           f"sum by (lock) ({recent('mageflow_lock_wait_seconds_count{L}')})", "lock", _MOST_WAITED),
                   "{{lock}}")],
            "Share of requests that waited more than 10 ms. If it is high, stagger the tasks that use this lock. Of "
            "many locks, the eight that were waited for most.",
            width=8, drill="lock", maximum=1,
        ),
    ),
)  # fmt: skip

_OUTCOMES = Section(
    "Outcomes and deadlocks",
    (
        lines(
            "Acquisitions by outcome", "ops",
            [Query(rate_of_active("mageflow_lock_acquisitions_total{L}", "lock", "outcome"), "{{lock}} {{outcome}}")],
            "How lock requests ended.", width=8, stacked=True, drill="lock",
        ),
        lines(
            "Lease renewals", "ops",
            [Query("sum by (result) (rate(mageflow_lock_lease_renewals_total{L}[R]))", "{{result}}")],
            "Renewals of held leases. lost: the work under the lock was no longer exclusive.",
            width=8,
        ),
        lines(
            "Deadlocks by victim", "short",
            [Query(counts("mageflow_deadlocks_total{L}", "victim_task", "lock", "resolution"),
                   "{{victim_task}} on {{lock}} {{resolution}}")],
            "Deadlocks broken, by the task whose attempt was aborted and what happened to it.",
            width=8, bars=True, decimals=0, empty="no deadlocks",
        ),
        lines(
            "Longest cycle", "short", [Query(quantile(1, "mageflow_deadlock_cycle_length_bucket{S}"), "members")],
            "Number of runs in the longest cycle. Two: two locks are taken in opposite order. More: the use of locks "
            "needs a new design.",
            empty="no deadlocks",
        ),
        lines(
            "Deadlock detector", "ops",
            [
                Query("sum by (result) (rate(mageflow_deadlock_checks_total{S}[R]))", "{{result}}"),
                Query(quantile_of_all(0.99, "mageflow_deadlock_check_duration_seconds_bucket{S}"), "check p99",
                      unit="s", dashed=True),
            ],
            "Deadlock checks per second (when a request starts to wait, and repeatedly while it waits), and the "
            "duration of one check (right axis). error: the round trip failed.",
        ),
    ),
)  # fmt: skip

_RESOLVED = (
    f'{{ name = "{traces.SPAN_RESOLVE_DEADLOCK()}" }} | '
    f"select(name, span.{traces.DEADLOCK_VICTIM_TASK}, span.{traces.DEADLOCK_RESOLUTION}, "
    f"span.{traces.DEADLOCK_CYCLE_LENGTH}, span.{traces.DEADLOCK_MEMBERS})"
)

_TRACES = Section(
    "Deadlocks one by one (needs Tempo)",
    (
        PanelSpec(
            "traces", "Deadlocks and their runs",
            "One row per deadlock, the latest first. Click the span to open its trace: it links to the attempts in the "
            "cycle and has an event for each wait. The runs have Hatchet's ids.",
            "short", (Query(_RESOLVED),), 24, 8,
            empty="no deadlocks",
            columns=(
                ("Start time", "found"), ("Name", "name"), (traces.DEADLOCK_VICTIM_TASK, "victim"),
                (traces.DEADLOCK_RESOLUTION, "resolution"), (traces.DEADLOCK_CYCLE_LENGTH, "members"),
                (traces.DEADLOCK_MEMBERS, "runs"), ("Duration", "duration"), ("Span ID", "span"),
            ),
        ),
    ),
)  # fmt: skip

_DEADLOCK_EVENTS = "mageflow.deadlock[.].+"

_MEMBERS = (1, 2, 3)
"""How many runs of a cycle have columns of their own. Longer cycles are rare; their trace has all."""

_DEADLOCKS_LOGGED = one_row_per_line(
    events.DEADLOCK_DETECTED.name,
    {
        "found": "timestamp", "trace": "deadlock_trace_id", "victim": "victim.task",
        **{
            f"{what}{n}": f"cycle[{n - 1}].{key}"
            for n in _MEMBERS
            for what, key in (("task", "task"), ("run", "run_id"), ("lock", "lock"))
        },
    },
    " or ".join(f'lock{n}=~"$lock"' for n in _MEMBERS),
)  # fmt: skip

_LOGS = Section(
    "Logs (needs Loki)",
    (
        PanelSpec(
            "logTable", "Deadlocks with links",
            "One row per deadlock. Click the trace to open it in Tempo, a run to open it in Hatchet (at the address in "
            "the variable above), a task to open its board, and the time for the logs of the first two runs.",
            "short", (Query(_DEADLOCKS_LOGGED),), 24, 8,
            empty="no deadlocks",
            columns=(
                ("found", "found"), ("victim", "victim"), ("trace", "trace"),
                *((f"{what}{n}", f"{what}{n}") for n in _MEMBERS for what in ("task", "lock", "run")),
            ),
        ),
        logs(
            "Logs of these locks", lines_with("event", f'lock=~"$lock" or event=~"{_DEADLOCK_EVENTS}"'),
            "Lines about the selected locks: waits, timeouts, lost leases; and every deadlock.",
        ),
    ),
)  # fmt: skip

BOARD = BoardSpec(
    uid="mageflow-locks",
    title="mageflow / Locks and deadlocks",
    description="Resource locks: holders, waiters, the wait-for graph between tasks, and every deadlock broken.",
    variables=("lock",),
    needs_tempo=True,
    needs_loki=True,
    links_runs=True,
    sections=(_RIGHT_NOW, _GRAPH, _WAITING_AND_HOLDING, _OUTCOMES, _TRACES, _LOGS),
)
