"""Board 3, stagger and timeouts: delays and their windows, the slots they occupy, and timeout extensions."""

from dashboards.generator.queries import counts, mean, quantile, recent, share_in_range
from dashboards.generator.spec import BoardSpec, Query, Section, heat, lines, stat

_MEAN = mean("mageflow_stagger_delay_seconds", "{T}", "task")
_WINDOW = "max by (task) (mageflow_stagger_window_seconds{T})"


def _delay(share: float) -> str:
    """A quantile of the delays, at most the window: the bucket that has the window in it reaches above it."""
    found = quantile(share, "mageflow_stagger_delay_seconds_bucket{T}", "task")
    return f"({found} < on (task) {_WINDOW}) or on (task) ({_WINDOW} and on (task) {found} >= 0)"


_RIGHT_NOW = Section(
    "Right now",
    (
        stat(
            "Mean delay", "s",
            share_in_range(
                "mageflow_stagger_delay_seconds_sum{T}",
                "mageflow_stagger_delay_seconds_count{T}",
            ),
            "Mean of the random delays in the selected time range; about half the window if they are evenly "
            "distributed.",
            instant=True, empty="no runs", width=5,
        ),
        stat(
            "Sleeping attempts", "short", 'sum(mageflow_tasks_in_flight{T,phase="stagger"})',
            "Attempts that occupy a slot while they sleep their stagger delay.", decimals=0, empty="no task", width=5,
        ),
        stat(
            "Share of slots asleep", "percentunit",
            'sum(mageflow_tasks_in_flight{S,phase="stagger"}) / sum(mageflow_worker_slots{S,pool="default"})',
            "Sleeping attempts of all tasks as a share of the default slots. If it is large, the stagger windows are "
            "too wide for the number of slots.",
            steps=((0.3, "orange"), (0.5, "red")), width=5,
        ),
        stat(
            "Failed extensions", "percentunit",
            share_in_range(
                'mageflow_timeout_extensions_total{T,result="error"}',
                "mageflow_timeout_extensions_total{T}",
            ),
            "Share of timeout extensions in the selected time range that Hatchet did not grant. The task still runs, "
            "with a delay shortened to fit its timeout.",
            steps=((0.01, "red"),), instant=True, empty="no runs", width=5,
        ),
        stat(
            "Near timeout", "short", "sum(mageflow_tasks_near_timeout{T})",
            "Running attempts that have used most of their timeout, extensions included.",
            steps=((1, "orange"),), decimals=0, empty="no task", width=4,
        ),
    ),
)  # fmt: skip

_DELAYS = Section(
    "Delays",
    (
        heat(
            "Delays", "s", f"sum by (le) ({recent('mageflow_stagger_delay_seconds_bucket{T}')})",
            "The random delays. If they are evenly distributed, each bucket has a count in proportion to its width.",
        ),
        lines(
            "Delay p50 / p95 and window", "s",
            [
                Query(_delay(0.5), "{{task}} p50"),
                Query(_delay(0.95), "{{task}} p95"),
                Query(_WINDOW, "{{task}} window", dashed=True),
            ],
            "Quantiles of the delays, and the configured window.",
            drill="task",
        ),
        lines(
            "Mean delay / window", "percentunit",
            [Query(f"({_MEAN}) / on (task) {_WINDOW}", "{{task}}")],
            "50 % if the delays are evenly distributed; with few samples it varies around that.",
            width=8, drill="task", maximum=1,
        ),
        lines(
            "Arrivals and starts", "short",
            [
                Query(f"sum({recent('mageflow_task_queue_wait_seconds_count{T}')} "
                      "and on (job, task) mageflow_stagger_window_seconds{T})", "first attempts arrived"),
                Query("sum(" + recent('mageflow_staggers_total{T,outcome="completed"}') + ")", "staggers completed"),
            ],
            "The effect of staggering, over the staggered tasks: attempts arrive in bursts, and their functions start "
            "evenly.",
            width=8,
        ),
        lines(
            "Stagger outcomes", "short",
            [Query(counts("mageflow_staggers_total{T}", "task", "outcome"), "{{task}} {{outcome}}")],
            "How stagger sleeps ended, per interval: completed, cancelled during the sleep, or shortened because the "
            "timeout could not be extended (extension_failed).",
            width=8, bars=True, decimals=0, drill="task", empty="no runs",
        ),
    ),
)  # fmt: skip

_TIMEOUTS = Section(
    "Timeouts",
    (
        lines(
            "Extensions by result", "short",
            [Query(counts("mageflow_timeout_extensions_total{T}", "reason", "result"), "{{reason}} {{result}}")],
            "Requests to Hatchet for more execution time per interval, by reason.",
            width=8, bars=True, decimals=0, empty="no extensions",
        ),
        lines(
            "Extension amount p95", "s",
            [Query(quantile(0.95, "mageflow_timeout_extension_seconds_bucket{T}", "reason"), "{{reason}}")],
            "How much time was granted. It follows the stagger window.", width=8,
        ),
        lines(
            "Extension request p95", "s",
            [Query(quantile(0.95, "mageflow_timeout_extension_request_duration_seconds_bucket{S}"), "request")],
            "How long Hatchet takes to answer a request for more time. The sleep starts after the answer.",
            width=8, steps=((1, "red"),),
        ),
        lines(
            "Timed-out attempts", "short",
            [Query(counts('mageflow_task_runs_total{T,outcome="timed_out"}', "task"), "{{task}}")],
            "Attempts per interval that ended in a timeout, of staggered and other tasks.",
            bars=True, decimals=0, drill="task", colour="red", empty="no timeouts",
        ),
        lines(
            "Near timeout by task", "short",
            [Query("sum by (task) (mageflow_tasks_near_timeout{T})", "{{task}}")],
            "Running attempts that have used most of their timeout, by task.", drill="task",
            steps=((1, "orange"),),
        ),
    ),
)  # fmt: skip

BOARD = BoardSpec(
    uid="mageflow-stagger",
    title="mageflow / Stagger and timeouts",
    description="The random delays of staggered tasks: their distribution, the slots they occupy, and timeouts.",
    variables=("task",),
    sections=(_RIGHT_NOW, _DELAYS, _TIMEOUTS),
)
