"""Board 3, stagger and timeouts: delays and their windows, the slots they occupy, and timeout extensions."""

from dashboards.generator.queries import counts, in_range, mean, per_step, quantile, recent, share_in_range
from dashboards.generator.spec import BoardSpec, Query, Section, curve, heat, lines, stat, table

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
            instant=True, empty="no runs",
        ),
        stat(
            "Sleeping attempts", "short", 'sum(mageflow_tasks_in_flight{T,phase="stagger"})',
            "Attempts that occupy a slot while they sleep their stagger delay.", decimals=0, empty="no task",
        ),
        stat(
            "Share of slots asleep", "percentunit",
            'sum(mageflow_tasks_in_flight{S,phase="stagger"}) / sum(mageflow_worker_slots{S,pool="default"})',
            "Sleeping attempts of all tasks as a share of the default slots. If it is large, the stagger windows are "
            "too wide for the number of slots.",
            steps=((0.3, "orange"), (0.5, "red")),
        ),
        stat(
            "Slot-seconds asleep", "s",
            "sum(" + in_range('mageflow_task_stage_seconds_total{T,stage="stagger"}') + ")",
            "Time that attempts slept in their slots in the selected time range, summed: what staggering costs.",
            instant=True, empty="no runs",
        ),
        stat(
            "Failed extensions", "percentunit",
            share_in_range(
                'mageflow_timeout_extensions_total{T,result="error"}',
                "mageflow_timeout_extensions_total{T}",
            ),
            "Share of timeout extensions in the selected time range that Hatchet did not grant. The task still runs, "
            "with a delay shortened to fit its timeout.",
            steps=((0.01, "red"),), instant=True, empty="no runs",
        ),
        stat(
            "Near timeout", "short", "sum(mageflow_tasks_near_timeout{T})",
            "Running attempts that have used most of their timeout, extensions included.",
            steps=((1, "orange"),), decimals=0, empty="no task",
        ),
    ),
)  # fmt: skip

_QUANTILES = tuple(tenth / 10 for tenth in range(11))


def _curve(share: float) -> str:
    """One point of the cumulative curve: the delay, as a share of the window, that this share of runs got at most."""
    delay = quantile(share, "mageflow_stagger_delay_seconds_bucket{T}", "task", visible_range=True)
    point = f"avg(clamp_max(({delay}) / on (task) {_WINDOW}, 1))"
    return f'label_replace({point}, "share", "{share:g}", "", "")'


_EVEN = " or ".join(
    # From the windows, so that the line is there only if a task is staggered.
    f'label_replace(avg({_WINDOW}) * 0 + {share:g}, "share", "{share:g}", "", "")'
    for share in _QUANTILES
)

_OF_STAGGERED = "and on (job, instance, task) mageflow_stagger_window_seconds{T}"

_DELAYS = Section(
    "Delays",
    (
        curve(
            "Delays against an even distribution", "percentunit",
            [
                Query(" or ".join(_curve(share) for share in _QUANTILES), "delays"),
                Query(_EVEN, "even", dashed=True),
            ],
            "share",
            "The delays of the time range, from the shortest to the longest, as a share of the window. On the dashed "
            "line they are even. A curve below it means that many runs start early, together.",
        ),
        lines(
            "Arrivals and starts", "short",
            [
                Query(per_step("mageflow_task_queue_wait_seconds_count{T}", _OF_STAGGERED), "arrived"),
                Query(per_step('mageflow_staggers_total{T,outcome="completed"}'), "started"),
            ],
            "How many staggered runs got a slot, and how many functions began after their delay, in each step. A burst "
            "of arrivals becomes several lower peaks of starts. A step is as short as the scrape interval: to see a "
            "window, scrape four times in it, so each second for 4 s. *Delays against an even distribution* shows the "
            "spread at any scrape interval.",
            decimals=0, empty="no runs",
        ),
        heat(
            "Delays", "s", "mageflow_stagger_delay_seconds_bucket", "{T}",
            "The random delays. If they are evenly distributed, each bucket has a count in proportion to its width. "
            "The dots are exemplars: each opens the trace of one attempt.",
        ),
        lines(
            "Delay p50 / p95 and window", "s",
            [
                Query(_delay(0.5), "{{task}} p50"),
                Query(_delay(0.95), "{{task}} p95"),
                Query(_WINDOW, "{{task}} window", dashed=True),
            ],
            "Quantiles of the delays, and the configured window.",
            drill="task", has_exemplars=False,
        ),
        lines(
            "Mean delay / window", "percentunit",
            [Query(f"({_MEAN}) / on (task) {_WINDOW}", "{{task}}")],
            "50 % if the delays are evenly distributed; with few samples it varies around that.",
            drill="task", maximum=1,
        ),
        lines(
            "Stagger outcomes", "short",
            [Query(counts("mageflow_staggers_total{T}", "task", "outcome"), "{{task}} {{outcome}}")],
            "How stagger sleeps ended, per interval: completed, cancelled during the sleep, or shortened because the "
            "timeout could not be extended (extension_failed).",
            bars=True, decimals=0, drill="task", empty="no runs",
        ),
    ),
)  # fmt: skip

_HELD_BY_STAGGERED = (
    "group by (lock, task) (max_over_time(mageflow_lock_holders{T}[$__range]) > 0 " + _OF_STAGGERED + ")"
)
"""The locks that staggered tasks hold. A lock whose holds are all shorter than a scrape is not seen."""

_MEAN_HOLD = (
    f"max by (task) ({_HELD_BY_STAGGERED} * on (lock) group_left () "
    "(sum by (lock) (increase(mageflow_lock_hold_seconds_sum{S}[$__range])) / "
    "sum by (lock) (increase(mageflow_lock_hold_seconds_count{S}[$__range]))))"
)
_MEAN_WORK = (
    'sum by (task) (increase(mageflow_task_stage_seconds_total{T,stage="body"}[$__range])) / '
    "sum by (task) (increase(mageflow_task_runs_total{T}[$__range]))"
)
_BURST = (
    "max_over_time(sum by (task) (increase(mageflow_task_queue_wait_seconds_count{T}[1m]) "
    + _OF_STAGGERED + ")[$__range:30s])"
)  # fmt: skip
"""Arrivals in the busiest minute. With $__rate_interval it would grow with the time range."""

_EFFECT = Section(
    "What it costs, and what it protects",
    (
        lines(
            "Slots of staggered tasks by stage", "short",
            [Query('sum by (stage) (rate(mageflow_task_stage_seconds_total{T,stage=~"stagger|lock_wait|body"}[R]) '
                   + _OF_STAGGERED + ")", "{{stage}}")],
            "Mean number of slots. stagger is the price: slots that sleep. lock_wait is what it saves: a wider window "
            "is worth it while it lowers the sum of both.",
            stacked=True,
        ),
        lines(
            "Contention of their locks", "percentunit",
            [
                Query("(1 - sum by (lock) (" + recent('mageflow_lock_wait_seconds_bucket{S,le="0.01"}') + ") / "
                      f"sum by (lock) ({recent('mageflow_lock_wait_seconds_count{S}')})) "
                      f"and on (lock) {_HELD_BY_STAGGERED}", "{{lock}} contended"),
            ],
            "Share of requests that waited more than 10 ms, for the locks that staggered tasks hold. If it is low, the "
            "window may be shorter.",
            drill="lock", maximum=1, empty="no lock is held by a staggered task",
        ),
        table(
            "Configured window", "s", _WINDOW, (("task", "task"),), "window",
            "wait_delta of each staggered task.", height=6,
        ),
        table(
            "Window that holds and arrivals suggest", "s",
            f"({_BURST}) * on (task) (({_MEAN_HOLD}) or ({_MEAN_WORK}))", (("task", "task"),), "suggested",
            "The arrivals of the busiest minute, times the mean hold of the task's lock, or its mean work where no "
            "lock was seen: so long do these runs take one after another. A window of this length lets most of them "
            "find the lock free. Scrape at least every 15 seconds.",
            height=6, empty="no runs",
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
            [
                Query(
                    "sum by (task) (mageflow_tasks_near_timeout{T}) and on (task) "
                    "max by (task) (max_over_time(mageflow_tasks_near_timeout{T}[$__range] @ end())) > 0",
                    "{{task}}",
                )
            ],
            "Running attempts that have used most of their timeout, by task, of tasks that had one in the visible "
            "range.",
            drill="task", steps=((1, "orange"),), empty="none",
        ),
    ),
)  # fmt: skip

BOARD = BoardSpec(
    uid="mageflow-stagger",
    title="mageflow / Stagger and timeouts",
    description="The random delays of staggered tasks: their distribution, the slots they occupy, and timeouts.",
    variables=("task",),
    sections=(_RIGHT_NOW, _DELAYS, _EFFECT, _TIMEOUTS),
)
