"""Board 1, fleet overview: are all workers well, and if not, which task, pool or process has a problem."""

from dashboards.generator.queries import ENDED, counts, highest_gauge, in_range, quantile_of_all
from dashboards.generator.spec import BoardSpec, Query, Section, heat, lines, stat, table

_OWN = "and on (job, instance) mageflow_worker_info{S}"
"""Limits series about processes and scrapes to mageflow workers."""

_DEADLOCKS = in_range("mageflow_deadlocks_total{S}")


_RIGHT_NOW = Section(
    "Right now",
    (
        stat(
            "Workers", "short", "count(mageflow_worker_info{S})",
            "Workers whose metrics are scraped. If you run more, look for MageflowWorkerUnreachable alerts, or for "
            "processes that Prometheus does not know.",
            empty="no workers", decimals=0,
        ),
        stat(
            "Success", "percentunit",
            'sum(rate(mageflow_task_runs_total{S,outcome="succeeded"}[R])) / '
            'sum(rate(mageflow_task_runs_total{S,outcome=~"succeeded|failed|timed_out"}[R]))',
            "Share of settled attempts that succeeded. Retried and cancelled attempts and skipped duplicates are not "
            "counted, because they do not show whether the task works.",
            steps=((0.95, "orange"), (0.99, "green")), low_is_bad=True, empty="no runs",
        ),
        stat(
            "Slot use", "percentunit",
            "sum(mageflow_worker_slots_used{S}) / sum(mageflow_worker_slots{S})",
            "Share of the configured slots that are in use. Near 100 % new runs wait in Hatchet: add workers, or look "
            "at Where slots go.",
            steps=((0.8, "orange"), (0.95, "red")),
        ),
        stat(
            "Queue wait p95", "s", quantile_of_all(0.95, "mageflow_task_queue_wait_seconds_bucket{S}"),
            "Time from enqueue (or due time) to the start of the first attempt, for runs that mageflow enqueued.",
            steps=((10, "orange"), (60, "red")), empty="no runs",
        ),
        stat(
            "Near timeout", "short", "sum(mageflow_tasks_near_timeout{S})",
            "Running attempts that have used more than 80 % (MAGEFLOW_NEAR_TIMEOUT_RATIO) of their timeout.",
            steps=((1, "orange"),), decimals=0,
        ),
        stat(
            "Deadlocks in range", "short",
            f"sum({_DEADLOCKS}) or 0 * sum(rate(mageflow_lock_acquisitions_total{{S}}[R]))",
            "Deadlocks found and broken in the selected time range. Each one aborts an attempt. The locks board shows "
            "the tasks.",
            steps=((0.5, "red"),), empty="no locks", instant=True, decimals=0,
        ),
    ),
)  # fmt: skip

_WORK = Section(
    "Work",
    (
        lines(
            "Runs by end state", "short",
            [Query(counts(f"mageflow_task_runs_total{{S,{ENDED}}}", "outcome"), "{{outcome}}")],
            "Runs that ended, per interval. Attempts that Hatchet retries are left out: a run that fails twice and "
            "then succeeds is one success.",
            bars=True, decimals=0, empty="no runs",
        ),
        lines(
            "Attempts by outcome", "ops",
            [Query("sum by (outcome) (rate(mageflow_task_runs_total{S}[R]))", "{{outcome}}")],
            "Finished attempts per second. timed_out is not part of failed. An attempt that Hatchet will retry is "
            "retried, not failed.",
            stacked=True,
        ),
        lines(
            "Worst tasks by end state", "percentunit",
            [Query(
                'topk(10, sum by (task, outcome) (rate(mageflow_task_runs_total{S,outcome=~"failed|timed_out"}[R])) / '
                "on (task) group_left () sum by (task) "
                '(rate(mageflow_task_runs_total{S,outcome=~"succeeded|failed|timed_out"}[R]))) > 0',
                "{{task}} {{outcome}}",
            )],
            "The largest shares of runs that failed for good or timed out, by task and end state. Retries, "
            "cancellations and skipped duplicates are not counted. Click a line to open the task.",
            drill="task", steps=((0.05, "red"),), maximum=1, empty="no task fails",
        ),
        lines(
            "Duration p50 / p95 / p99", "s",
            [
                Query(quantile_of_all(share, "mageflow_task_run_duration_seconds_bucket{S}"), f"p{share * 100:g}")
                for share in (0.5, 0.95, 0.99)
            ],
            "Duration of attempts without their stagger sleep, over all tasks. The task board has the traces: one dot "
            "for each.",
            has_exemplars=False,
        ),
        heat(
            "Queue wait", "s", "mageflow_task_queue_wait_seconds_bucket", "{S}",
            "How long runs waited for a slot, over time. If the band climbs, the backlog grows. Only runs that began "
            "are here; Waiting in Hatchet shows the others.",
            width=8,
        ),
        lines(
            "Waiting in Hatchet", "short",
            [Query(highest_gauge("mageflow_tasks_waiting{S}", "task"), "{{task}}")],
            "Runs that no worker has started, as Hatchet counts them, for eight tasks at most. One elected "
            "worker reads them. Absent while Hatchet does not answer.",
            drill="task", decimals=0, width=8, empty="not known",
        ),
        lines(
            "Oldest waiting run", "s",
            [Query(highest_gauge("mageflow_task_oldest_waiting_seconds{S}", "task"), "{{task}}")],
            "How long the oldest of them has waited. It climbs by a second each second if no worker takes the task.",
            drill="task", steps=((60, "orange"), (300, "red")), width=8, empty="not known",
        ),
    ),
)  # fmt: skip

_CAPACITY = Section(
    "Capacity",
    (
        lines(
            "Where slots go", "short",
            [Query("sum by (stage) (rate(mageflow_task_stage_seconds_total{S}[R]))", "{{stage}}")],
            "Mean number of slots in each stage. Every stage except body occupies a slot without doing the task's "
            "work: stagger sleeps, lock waits, signature loads.",
            stacked=True,
        ),
        lines(
            "Slots", "short",
            [
                Query("sum by (pool) (mageflow_worker_slots_used{S})", "{{pool}} used"),
                Query("sum by (pool) (mageflow_worker_slots{S})", "{{pool}} configured", dashed=True),
            ],
            "Used and configured slots, for ordinary (default) and durable tasks.",
        ),
        lines(
            "Enqueues by source", "short",
            [Query(counts("mageflow_tasks_enqueued_total{S}", "source", "result"), "{{source}} {{result}}")],
            "Runs sent to Hatchet per interval, by what started them. Result error: Hatchet did not accept the run.",
            bars=True, decimals=0, empty="no runs", width=8,
        ),
        lines(
            "Enqueue p95", "s",
            [Query(quantile_of_all(0.95, "mageflow_task_enqueue_duration_seconds_bucket{S}", "operation"),
                   "{{operation}}")],
            "Duration of the calls that send runs to Hatchet, from workers and producers.",
            steps=((1, "red"),), width=8,
        ),
        table(
            "Tasks that nothing serves", "short",
            f"round(sum by (task, reason) ({in_range('mageflow_tasks_unserved_total{S}')})) > 0",
            (("task", "task"), ("reason", "reason")), "senders in range",
            "Tasks of which a sender saw a run that no worker takes, with the number of such senders. no_worker: none "
            "is connected. not_served: none of the connected has the task. unreachable: Hatchet does not answer.",
            width=8, steps=((1, "red"),), empty="every task is served",
        ),
    ),
)  # fmt: skip

_PROCESSES = Section(
    "Processes and telemetry",
    (
        lines(
            "Event loop lag p99 by instance", "s",
            [Query(quantile_of_all(0.99, "mageflow_event_loop_lag_seconds_bucket{S}", "instance"), "{{instance}}")],
            "How late the event loop that runs the tasks wakes up. Above one second something blocks it, for example a "
            "synchronous call in an async task. Heartbeats and timeouts are then late too.",
            width=8, steps=((1, "red"),),
        ),
        lines(
            "Process CPU and memory", "percentunit",
            [
                Query(f"rate(process_cpu_seconds_total{{S}}[R]) {_OWN}", "{{instance}} CPU"),
                Query(f"process_resident_memory_bytes{{S}} {_OWN}", "{{instance}} memory", unit="bytes"),
            ],
            "CPU (left axis, 100 % is one core) and resident memory (right axis) of each worker process.",
            width=8,
        ),
        lines(
            "Scrape cost", "s",
            [
                Query(f"max by (instance) (scrape_duration_seconds{{S}} {_OWN})", "{{instance}} time"),
                Query(f"max by (instance) (scrape_samples_scraped{{S}} {_OWN})", "{{instance}} samples", unit="short"),
            ],
            "Time (left axis) and number of samples (right axis) of each scrape. If the number of samples never stops "
            "growing, label values are created at run time.",
            width=8,
        ),
        lines(
            "Telemetry errors", "ops",
            [Query("sum by (signal) (rate(mageflow_telemetry_errors_total{S}[R]))", "{{signal}}")],
            "Errors inside mageflow's telemetry, by signal. They do not affect tasks, but data is missing.",
            colour="orange", width=6, height=6,
        ),
        lines(
            "Clock skew by instance", "s",
            [Query("mageflow_clock_skew_seconds{S}", "{{instance}}")],
            "How far the clock of each worker is ahead of that of Redis; below 0 it is behind. Queue waits on a worker "
            "that is ahead are too long by that. Beyond one second it counts as an error of the signal clock.",
            width=6, height=6, steps=((1, "red"),), signed=True,
        ),
        table(
            "Ends corrected by Hatchet", "short",
            f"round(sum by (from, to) ({in_range('mageflow_task_outcomes_corrected_total{S}')})) > 0",
            (("from", "seen by the worker"), ("to", "counted")), "attempts in range",
            "Attempts that Hatchet ended in another way than the worker saw. They are counted as Hatchet ended them. "
            "Many of them mean that something blocks the event loop.",
            width=6, height=6, steps=((1, "orange"),), empty="none",
        ),
        table(
            "Folded label values", "short",
            f"round(sum by (label) ({in_range('mageflow_telemetry_dropped_label_values_total{S}')})) > 0",
            (("label", "label"),), "folded in range",
            "Label values counted as __other__, because they were not declared or the label reached its limit. Empty "
            "is good.",
            width=6, height=6, steps=((1, "orange"),), empty="nothing folded",
        ),
    ),
)  # fmt: skip

_ENGINE = Section(
    "Engine backlog (needs Hatchet's own metrics)",
    (
        lines(
            "Engine backlog by workflow", "short",
            [Query("sum by (workflow_name) (hatchet_tenant_queue_size)", "{{workflow_name}}")],
            "Items in Hatchet's queues. Only a self-hosted Hatchet with SERVER_PROMETHEUS_ENABLED exports this metric. "
            "Its job is a different one, so the variables job and instance have no effect here.",
            width=24,
        ),
    ),
    collapsed=True,
)  # fmt: skip

BOARD = BoardSpec(
    uid="mageflow-overview",
    title="mageflow / Fleet overview",
    description="Start here: outcomes, latency, slots and health of all mageflow workers and producers.",
    sections=(_RIGHT_NOW, _WORK, _CAPACITY, _PROCESSES, _ENGINE),
)
