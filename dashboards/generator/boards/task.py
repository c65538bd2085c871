"""Board 2: one decorated task, or a few: throughput, latency, failures, timeouts, signatures."""

from dashboards.generator.queries import occurring
from dashboards.generator.spec import BoardSpec, Query, Section, heat, lines, stat, table

BOARD = BoardSpec(
    uid="mageflow-task",
    title="mageflow / Decorated tasks",
    description="One task in detail: choose it above, or come here by clicking its name on another board.",
    variables=("task",),
    sections=(
        Section(
            "Right now",
            (
                stat(
                    "Throughput", "ops", "sum(rate(mageflow_task_runs_total{T}[R]))",
                    "Finished attempts per second of the chosen tasks, whatever their outcome.", empty="no task",
                ),
                stat(
                    "Duration p95", "s",
                    "histogram_quantile(0.95, sum by (le) (rate(mageflow_task_run_duration_seconds_bucket{T}[R])))",
                    "95 % of attempts took less than this, stagger sleep not counted.", empty="idle",
                ),
                stat(
                    "Retry share", "percentunit",
                    'sum(rate(mageflow_task_runs_total{T,outcome="retried"}[R])) / '
                    "sum(rate(mageflow_task_runs_total{T}[R]))",
                    "Share of attempts that failed and will be tried again: work done twice.",
                    steps=((0.1, "orange"), (0.3, "red")), empty="idle",
                ),
                stat(
                    "Timeout set", "s", "max(mageflow_task_timeout_seconds{T})",
                    "The longest execution timeout configured among the chosen tasks, without extensions.",
                    empty="no task",
                ),
                stat(
                    "In flight", "short", "sum(mageflow_tasks_in_flight{T})",
                    "Live attempts of the chosen tasks at the last scrape.", decimals=0, empty="no task",
                ),
                stat(
                    "Orphan threads", "short", "sum(mageflow_task_orphan_threads{T})",
                    "Synchronous bodies that still run although their attempt was cancelled or timed out. Python "
                    "cannot stop a thread; each keeps one of the worker's threads.",
                    steps=((1, "red"),), decimals=0, empty="no task",
                ),
            ),
        ),
        Section(
            "Outcomes and latency",
            (
                lines(
                    "Outcomes", "ops",
                    [Query(occurring("mageflow_task_runs_total{T}", "task", "outcome"), "{{task}} {{outcome}}")],
                    "Finished attempts per second by task and outcome; outcomes that do not occur are left out.",
                    stacked=True, drill="task",
                ),
                lines(
                    "In flight by phase", "short",
                    [Query("sum by (phase) (mageflow_tasks_in_flight{T})", "{{phase}}")],
                    "What live attempts are doing: loading a signature, sleeping their stagger, waiting for a lock, "
                    "running, or being cancelled.",
                    stacked=True,
                ),
                lines(
                    "Duration p95 by task and outcome", "s",
                    [Query("histogram_quantile(0.95, sum by (le, task, outcome) "
                           "(rate(mageflow_task_run_duration_seconds_bucket{T}[R])))", "{{task}} {{outcome}}")],
                    "Failures are timed apart from successes, so that fast failures cannot flatter the latency.",
                    drill="task",
                ),
                heat(
                    "Duration", "s", "sum by (le) (increase(mageflow_task_run_duration_seconds_bucket{T}[R]))",
                    "The whole distribution: two bands are two kinds of work, or a cache that sometimes misses.",
                ),
                lines(
                    "Queue wait p95 by task", "s",
                    [Query("histogram_quantile(0.95, sum by (le, task) "
                           "(rate(mageflow_task_queue_wait_seconds_bucket{T}[R])))", "{{task}}")],
                    "From enqueue or due time to the first attempt. Retries are not counted again.",
                    drill="task", steps=((60, "red"),),
                ),
                lines(
                    "Failures by exception", "ops",
                    [Query("sum by (task, exception) (rate(mageflow_task_failures_total{T}[R]))",
                           "{{task}} {{exception}}")],
                    "Attempts that ended with an exception, by its class. Messages and arguments are not recorded.",
                    drill="task",
                ),
                lines(
                    "Timeout budget used p95", "percentunit",
                    [Query("histogram_quantile(0.95, sum by (le, task) "
                           "(rate(mageflow_task_timeout_used_ratio_bucket{T}[R])))", "{{task}}")],
                    "Wall time at the end of an attempt over its timeout, extensions included. It shows a timeout "
                    "coming before it happens.",
                    drill="task", steps=((0.8, "orange"), (0.95, "red")),
                ),
                lines(
                    "Slot-seconds by stage", "short",
                    [Query(occurring("mageflow_task_stage_seconds_total{T}", "task", "stage"), "{{task}} {{stage}}")],
                    "Mean number of slots each task holds, by what it does with them.",
                    stacked=True, drill="task",
                ),
            ),
        ),
        Section(
            "All tasks, and their signatures",
            (
                table(
                    "Heaviest tasks", "short",
                    "topk(15, sum by (task) (rate(mageflow_task_stage_seconds_total{S}[R])))",
                    (("task", "task"),), "mean slots",
                    "The tasks that hold the most slots, over all tasks. Click one to choose it.",
                    width=8, drill="task",
                ),
                lines(
                    "Signature loads", "ops",
                    [Query(occurring("mageflow_signature_loads_total{S}", "kind", "result"), "{{kind}} {{result}}")],
                    "Signatures read from Redis at the start of an attempt. missing: expired or removed before the "
                    "run came; invalid: the stored document does not validate.",
                    width=8,
                ),
                lines(
                    "Signature load p99", "s",
                    [Query("histogram_quantile(0.99, sum by (le, kind) "
                           "(rate(mageflow_signature_load_duration_seconds_bucket{S}[R])))", "{{kind}}")],
                    "One round trip to Redis. Above 100 ms look at Redis and the network, not at mageflow.",
                    width=8, steps=((0.1, "orange"),),
                ),
            ),
        ),
    ),
)  # fmt: skip
