"""Board 3: stagger delays against their window, what they cost in slots, and whether timeouts were extended."""

from dashboards.generator.queries import occurring
from dashboards.generator.spec import BoardSpec, Query, Section, heat, lines, stat

_MEAN = (
    "sum by (task) (rate(mageflow_stagger_delay_seconds_sum{T}[R])) / "
    "sum by (task) (rate(mageflow_stagger_delay_seconds_count{T}[R]))"
)

BOARD = BoardSpec(
    uid="mageflow-stagger",
    title="mageflow / Stagger and timeouts",
    description="Random delays before staggered tasks: are they even, what do they cost, do timeouts follow.",
    variables=("task",),
    sections=(
        Section(
            "Right now",
            (
                stat(
                    "Mean delay", "s",
                    "sum(rate(mageflow_stagger_delay_seconds_sum{T}[R])) / "
                    "sum(rate(mageflow_stagger_delay_seconds_count{T}[R]))",
                    "Mean of the delays drawn; about half the window when the draw is even.", empty="idle", width=5,
                ),
                stat(
                    "Sleepers in slots", "short", 'sum(mageflow_tasks_in_flight{T,phase="stagger"})',
                    "Attempts that hold a slot while they sleep their stagger.", decimals=0, empty="no task", width=5,
                ),
                stat(
                    "Share of slots asleep", "percentunit",
                    'sum(mageflow_tasks_in_flight{S,phase="stagger"}) / sum(mageflow_worker_slots{S,pool="default"})',
                    "Sleeping attempts of all tasks over the slots of the ordinary pool. A large share means the "
                    "windows are too wide for the number of slots.",
                    steps=((0.3, "orange"), (0.5, "red")), width=5,
                ),
                stat(
                    "Failed extensions", "percentunit",
                    'sum(rate(mageflow_timeout_extensions_total{T,result="error"}[R])) / '
                    "sum(rate(mageflow_timeout_extensions_total{T}[R]))",
                    "Share of timeout extensions that Hatchet did not grant. The task still runs, with its delay cut "
                    "to what its timeout leaves.",
                    steps=((0.01, "red"),), empty="idle", width=5,
                ),
                stat(
                    "Near timeout", "short", "sum(mageflow_tasks_near_timeout{T})",
                    "Live attempts that have used most of their timeout, extensions included.",
                    steps=((1, "orange"),), decimals=0, empty="no task", width=4,
                ),
            ),
        ),
        Section(
            "Delays",
            (
                heat(
                    "Delays", "s", "sum by (le) (increase(mageflow_stagger_delay_seconds_bucket{T}[R]))",
                    "Delays as drawn. An even draw fills buckets in proportion to their width.",
                ),
                lines(
                    "Delay p50 / p95 against window", "s",
                    [
                        Query("histogram_quantile(0.5, sum by (le, task) "
                              "(rate(mageflow_stagger_delay_seconds_bucket{T}[R])))", "{{task}} p50"),
                        Query("histogram_quantile(0.95, sum by (le, task) "
                              "(rate(mageflow_stagger_delay_seconds_bucket{T}[R])))", "{{task}} p95"),
                        Query("max by (task) (mageflow_stagger_window_seconds{T})", "{{task}} window", dashed=True),
                    ],
                    "Quantiles of the delays beside the window they are drawn from. Buckets are coarse: a quantile "
                    "may read up to one bucket bound above the window.",
                    drill="task",
                ),
                lines(
                    "Evenness: mean over window", "percentunit",
                    [Query(f"({_MEAN}) / on (task) max by (task) (mageflow_stagger_window_seconds{{T}})", "{{task}}")],
                    "Mean delay over window. 50 % is an even draw; few samples scatter around it.",
                    width=8, drill="task", maximum=1,
                ),
                lines(
                    "Arrivals against body starts", "ops",
                    [
                        Query("sum(rate(mageflow_task_queue_wait_seconds_count{T}[R]) "
                              "and on (job, task) mageflow_stagger_window_seconds{T})", "first attempts arrived"),
                        Query('sum(rate(mageflow_staggers_total{T,outcome="completed"}[R]))', "staggers completed"),
                    ],
                    "What staggering does, over the staggered tasks: arrivals come in bursts, bodies start spread out.",
                    width=8,
                ),
                lines(
                    "Stagger outcomes", "ops",
                    [Query(occurring("mageflow_staggers_total{T}", "task", "outcome"), "{{task}} {{outcome}}")],
                    "How stagger sleeps ended: completed, cancelled while asleep, or cut short because the timeout "
                    "could not be extended.",
                    width=8, stacked=True, drill="task",
                ),
            ),
        ),
        Section(
            "Timeouts",
            (
                lines(
                    "Extensions by result", "ops",
                    [Query(occurring("mageflow_timeout_extensions_total{T}", "reason", "result"),
                           "{{reason}} {{result}}")],
                    "Requests to Hatchet for more execution time, by what it is for.", width=8,
                ),
                lines(
                    "Extension amount p95", "s",
                    [Query("histogram_quantile(0.95, sum by (le, reason) "
                           "(rate(mageflow_timeout_extension_seconds_bucket{T}[R])))", "{{reason}}")],
                    "How much time was granted; follows the stagger window.", width=8,
                ),
                lines(
                    "Extension request p95", "s",
                    [Query("histogram_quantile(0.95, sum by (le) "
                           "(rate(mageflow_timeout_extension_request_duration_seconds_bucket{S}[R])))", "request")],
                    "How long Hatchet takes to answer a request for more time. It is paid before the sleep.",
                    width=8, steps=((1, "red"),),
                ),
                lines(
                    "Timeouts that still happened", "ops",
                    [Query('sum by (task) (rate(mageflow_task_runs_total{T,outcome="timed_out"}[R]))', "{{task}}")],
                    "Attempts that ended in a timeout, stagger or not.", drill="task", colour="red",
                ),
                lines(
                    "Near timeout by task", "short",
                    [Query("sum by (task) (mageflow_tasks_near_timeout{T})", "{{task}}")],
                    "Live attempts that have used most of their timeout, by task.", drill="task",
                    steps=((1, "orange"),),
                ),
            ),
        ),
    ),
)  # fmt: skip
