"""Board 2, decorated tasks: throughput, latency, failures, timeouts and signatures of one or a few tasks."""

from dashboards.generator.log_queries import lines_with
from dashboards.generator.queries import (
    ENDED,
    counts,
    highest,
    quantile,
    quantile_of_all,
    rate_of_active,
    share_in_range,
)
from dashboards.generator.spec import BoardSpec, Query, Section, heat, lines, logs, stat, table

_RIGHT_NOW = Section(
    "Right now",
    (
        stat(
            "Throughput", "ops", "sum(rate(mageflow_task_runs_total{T}[R]))",
            "Finished attempts per second of the selected tasks, with any outcome.", empty="no task",
        ),
        stat(
            "Duration p95", "s", quantile(0.95, "mageflow_task_run_duration_seconds_bucket{T}", visible_range=True),
            "95 % of the attempts in the selected time range took less time than this, without their stagger sleep.",
            instant=True, empty="no runs",
        ),
        stat(
            "Retry share", "percentunit",
            share_in_range(
                'mageflow_task_runs_total{T,outcome="retried"}',
                "mageflow_task_runs_total{T}",
            ),
            "Share of the attempts in the selected time range that failed and are retried. Their work is done twice.",
            steps=((0.1, "orange"), (0.3, "red")), instant=True, empty="no runs",
        ),
        stat(
            "Configured timeout", "s", "max(mageflow_task_timeout_seconds{T})",
            "The longest configured execution timeout of the selected tasks, without extensions.",
            empty="no task",
        ),
        stat(
            "In flight", "short", "sum(mageflow_tasks_in_flight{T})",
            "Running attempts of the selected tasks at the last scrape.", decimals=0, empty="no task",
        ),
        stat(
            "Orphan threads", "short", "sum(mageflow_task_orphan_threads{T})",
            "Synchronous functions that still run although their attempt was cancelled or timed out. Python cannot "
            "stop a thread; each one occupies a thread of the worker.",
            steps=((1, "red"),), decimals=0, empty="no task",
        ),
    ),
)  # fmt: skip

_OUTCOMES = Section(
    "Outcomes and latency",
    (
        lines(
            "Runs by end state", "short",
            [Query(counts(f"mageflow_task_runs_total{{T,{ENDED}}}", "task", "outcome"), "{{task}} {{outcome}}")],
            "Runs that ended, per interval, by task and end state. A run that fails twice and then succeeds is one "
            "success here, and three attempts beside.",
            bars=True, decimals=0, drill="task", empty="no runs",
        ),
        lines(
            "Attempts by outcome", "short",
            [Query(counts("mageflow_task_runs_total{T}", "task", "outcome"), "{{task}} {{outcome}}")],
            "Finished attempts per interval by task and outcome. Outcomes that do not occur are not shown.",
            bars=True, decimals=0, drill="task", empty="no runs",
        ),
        lines(
            "Waiting in Hatchet", "short",
            [
                Query("max by (task) (mageflow_tasks_waiting{T})", "{{task}} runs"),
                Query("max by (task) (mageflow_task_oldest_waiting_seconds{T})", "{{task}} oldest", unit="s",
                      dashed=True),
            ],
            "Runs that no worker has started, and the age of the oldest (right axis), as Hatchet counts them. Absent "
            "while Hatchet does not answer.",
            drill="task", decimals=0, empty="not known",
        ),
        lines(
            "In flight by phase", "short",
            [Query("sum by (phase) (mageflow_tasks_in_flight{T})", "{{phase}}")],
            "What running attempts do: load a signature, sleep their stagger delay, wait for a lock, run, or stop "
            "after a cancellation.",
            stacked=True,
        ),
        lines(
            "Duration p95 by task and outcome", "s",
            [Query(quantile(0.95, "mageflow_task_run_duration_seconds_bucket{T}", "task", "outcome"),
                   "{{task}} {{outcome}}")],
            "Failures and successes have separate lines, so fast failures do not lower the latency of successes.",
            drill="task", has_exemplars=False,
        ),
        heat(
            "Duration", "s", "mageflow_task_run_duration_seconds_bucket", "{T}",
            "Distribution of durations. Two bands are two kinds of work, for example cache hits and cache misses. Each "
            "dot opens the trace of one attempt.",
        ),
        lines(
            "Queue wait p95 by task", "s",
            [Query(highest(
                quantile(0.95, "mageflow_task_queue_wait_seconds_bucket{T}", "task"), "task",
                "sum by (task) (increase(mageflow_task_queue_wait_seconds_sum{T}[$__range] @ end()))"), "{{task}}")],
            "From enqueue or due time to the start of the first attempt. Retries are not counted. Of many tasks, the "
            "eight that waited most in all in the visible range: select others above.",
            drill="task", steps=((60, "red"),), width=8, has_exemplars=False,
        ),
        heat(
            "Queue wait", "s", "mageflow_task_queue_wait_seconds_bucket", "{T}",
            "Distribution of queue waits. Each dot opens the trace of one attempt.", width=8,
        ),
        lines(
            "Failures by exception", "short",
            [Query(counts("mageflow_task_failures_total{T}", "task", "exception"), "{{task}} {{exception}}")],
            "Attempts per interval that ended with an exception, by its class. Messages and arguments are not "
            "recorded.",
            bars=True, decimals=0, drill="task", width=8, empty="no failures",
        ),
        lines(
            "Timeout budget used p95", "percentunit",
            [Query(quantile(0.95, "mageflow_task_timeout_used_ratio_bucket{T}", "task"), "{{task}}")],
            "Duration of an attempt as a share of its timeout, extensions included. It shows that timeouts are near "
            "before they happen.",
            drill="task", steps=((0.8, "orange"), (0.95, "red")),
        ),
        lines(
            "Slot-seconds by stage", "short",
            [Query(rate_of_active("mageflow_task_stage_seconds_total{T}", "task", "stage"), "{{task}} {{stage}}")],
            "Mean number of slots that each task occupies, by stage.",
            stacked=True, drill="task",
        ),
    ),
)  # fmt: skip

_ALL_TASKS = Section(
    "All tasks and signatures",
    (
        table(
            "Heaviest tasks", "short",
            "topk(15, sum by (task) (rate(mageflow_task_stage_seconds_total{S}[R])))",
            (("task", "task"),), "mean slots",
            "The tasks that occupy the most slots, of all tasks. Click one to select it.",
            width=8,
        ),
        lines(
            "Signature loads", "ops",
            [Query(rate_of_active("mageflow_signature_loads_total{S}", "kind", "result"), "{{kind}} {{result}}")],
            "Signatures read from Redis at the start of an attempt. missing: it expired or was removed before the run "
            "started. invalid: the stored document does not validate.",
            width=8,
        ),
        lines(
            "Signature load p99", "s",
            [Query(quantile_of_all(0.99, "mageflow_signature_load_duration_seconds_bucket{S}", "kind"), "{{kind}}")],
            "One round trip to Redis. Above 100 ms the cause is Redis or the network.",
            width=8, steps=((0.1, "orange"),),
        ),
    ),
)  # fmt: skip

_LOGS = Section(
    "Logs (needs Loki)",
    (
        logs(
            "Logs of these tasks", lines_with("task", 'task=~"$task"'),
            "Lines of attempts of the selected tasks, of mageflow and of the tasks themselves. Click a line for all "
            "its fields, its trace, and its run in Hatchet.",
        ),
    ),
)  # fmt: skip

BOARD = BoardSpec(
    uid="mageflow-task",
    title="mageflow / Decorated tasks",
    description="One task in detail: select it above, or click its name on another board.",
    variables=("task",),
    needs_loki=True,
    sections=(_RIGHT_NOW, _OUTCOMES, _ALL_TASKS, _LOGS),
)
