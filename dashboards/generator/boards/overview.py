"""Board 1: is the fleet well, and if not, which task, pool or process is it."""

from dashboards.generator.queries import grown
from dashboards.generator.spec import BoardSpec, Query, Section, heat, lines, stat, table

_OWN = "and on (job, instance) mageflow_worker_info{S}"
"""Keeps process and scrape series of other programs in the same Prometheus off the board."""

_DEADLOCKS = grown("mageflow_deadlocks_total{S}", "{S}", "$__range", "$__range_s")

BOARD = BoardSpec(
    uid="mageflow-overview",
    title="mageflow / Fleet overview",
    description="Start here: outcomes, latency, slots and health of all mageflow workers and producers.",
    sections=(
        Section(
            "Right now",
            (
                stat(
                    "Workers", "short", "count(mageflow_worker_info{S})",
                    "Workers whose metrics were scraped. Fewer than you run: look for WorkerUnreachable alerts, "
                    "or for processes that Prometheus does not know.",
                    empty="no workers", decimals=0,
                ),
                stat(
                    "Success", "percentunit",
                    'sum(rate(mageflow_task_runs_total{S,outcome="succeeded"}[R])) / '
                    'sum(rate(mageflow_task_runs_total{S,outcome=~"succeeded|failed|timed_out"}[R]))',
                    "Share of settled attempts that succeeded. Retried attempts, cancellations and skipped duplicates "
                    "are left out: none of them is a verdict on the task.",
                    steps=((0.95, "orange"), (0.99, "green")), low_is_bad=True, empty="idle",
                ),
                stat(
                    "Slot use", "percentunit",
                    "sum(mageflow_worker_slots_used{S}) / sum(mageflow_worker_slots{S})",
                    "Slots taken by live attempts over slots configured. Near 100 % new runs wait in Hatchet: add "
                    "workers, or see below what the slots are spent on.",
                    steps=((0.8, "orange"), (0.95, "red")),
                ),
                stat(
                    "Queue wait p95", "s",
                    "histogram_quantile(0.95, sum by (le) (rate(mageflow_task_queue_wait_seconds_bucket{S}[R])))",
                    "Time from enqueue (or due time) to the start of the first attempt, for runs that mageflow "
                    "enqueued.",
                    steps=((10, "orange"), (60, "red")), empty="idle",
                ),
                stat(
                    "Near timeout", "short", "sum(mageflow_tasks_near_timeout{S})",
                    "Live attempts that have used more than 80 % (MAGEFLOW_NEAR_TIMEOUT_RATIO) of their timeout.",
                    steps=((1, "orange"),), decimals=0,
                ),
                stat(
                    "Deadlocks in range", "short",
                    f"sum({_DEADLOCKS}) or 0 * sum(rate(mageflow_lock_acquisitions_total{{S}}[R]))",
                    "Deadlocks that were found and broken in the selected time range. Each cost one attempt; the "
                    "locks board shows between whom.",
                    steps=((0.5, "red"),), empty="no locks", instant=True, decimals=0,
                ),
            ),
        ),
        Section(
            "Work",
            (
                lines(
                    "Runs by outcome", "ops", [Query("sum by (outcome) (rate(mageflow_task_runs_total{S}[R]))",
                                                     "{{outcome}}")],
                    "Finished attempts per second. timed_out is kept apart from failed; an attempt that Hatchet will "
                    "try again is retried, not failed.",
                    stacked=True,
                ),
                lines(
                    "Worst tasks by error ratio", "percentunit",
                    [Query(
                        'topk(10, sum by (task) (rate(mageflow_task_runs_total{S,outcome=~"failed|timed_out"}[R])) / '
                        "sum by (task) (rate(mageflow_task_runs_total{S}[R]))) > 0", "{{task}}",
                    )],
                    "The ten tasks with the largest share of attempts that failed for good or timed out. Click a line "
                    "to open its task.",
                    drill="task", steps=((0.05, "red"),), maximum=1, empty="no task fails",
                ),
                lines(
                    "Duration p50 / p95 / p99", "s",
                    [
                        Query(f"histogram_quantile({q}, sum by (le) "
                              "(rate(mageflow_task_run_duration_seconds_bucket{S}[R])))", legend)
                        for q, legend in (("0.5", "p50"), ("0.95", "p95"), ("0.99", "p99"))
                    ],
                    "Wall time of attempts without their stagger sleep, over all tasks. The dots are exemplars: each "
                    "opens the trace of one attempt.",
                ),
                heat(
                    "Queue wait", "s", "sum by (le) (increase(mageflow_task_queue_wait_seconds_bucket{S}[R]))",
                    "How long runs waited for a slot, and how that moved. A band that climbs is a backlog that grows.",
                ),
            ),
        ),
        Section(
            "Capacity",
            (
                lines(
                    "Where slots go", "short",
                    [Query("sum by (stage) (rate(mageflow_task_stage_seconds_total{S}[R]))", "{{stage}}")],
                    "Mean number of slots busy with each stage. Anything but body is a slot that is held without doing "
                    "the task's work: stagger sleeps, waits for locks, signature loads.",
                    stacked=True,
                ),
                lines(
                    "Slots", "short",
                    [
                        Query("sum by (pool) (mageflow_worker_slots_used{S})", "{{pool}} used"),
                        Query("sum by (pool) (mageflow_worker_slots{S})", "{{pool}} configured", dashed=True),
                    ],
                    "Slots in use against slots configured, for ordinary and durable tasks.",
                ),
                lines(
                    "Enqueues by source", "ops",
                    [Query("sum by (source, result) (rate(mageflow_tasks_enqueued_total{S}[R]))",
                           "{{source}} {{result}}")],
                    "Runs handed to Hatchet per second, by who asked for them. result error means Hatchet did not "
                    "take the run.",
                ),
                lines(
                    "Enqueue p95", "s",
                    [Query("histogram_quantile(0.95, sum by (le, operation) "
                           "(rate(mageflow_task_enqueue_duration_seconds_bucket{S}[R])))", "{{operation}}")],
                    "How long a call that hands runs to Hatchet takes, from workers and producers.",
                    steps=((1, "red"),),
                ),
            ),
        ),
        Section(
            "Processes and telemetry",
            (
                lines(
                    "Runner loop lag p99 by instance", "s",
                    [Query("histogram_quantile(0.99, sum by (le, instance) "
                           "(rate(mageflow_event_loop_lag_seconds_bucket{S}[R])))", "{{instance}}")],
                    "How late the event loop that runs the tasks wakes up. Above a second something blocks it: a "
                    "synchronous call in an async task. Heartbeats and timeouts suffer with it.",
                    width=8, steps=((1, "red"),),
                ),
                lines(
                    "Process CPU and memory", "percentunit",
                    [
                        Query(f"rate(process_cpu_seconds_total{{S}}[R]) {_OWN}", "{{instance}} CPU"),
                        Query(f"process_resident_memory_bytes{{S}} {_OWN}", "{{instance}} memory", unit="bytes"),
                    ],
                    "CPU (left, 100 % is one core) and resident memory (right) of each worker process.",
                    width=8,
                ),
                lines(
                    "Scrape cost", "s",
                    [
                        Query(f"max by (instance) (scrape_duration_seconds{{S}} {_OWN})", "{{instance}} time"),
                        Query(f"max by (instance) (scrape_samples_scraped{{S}} {_OWN})", "{{instance}} samples",
                              unit="short"),
                    ],
                    "What observing costs: time (left) and samples (right) of each scrape. Samples that grow without "
                    "end are label values made up at run time.",
                    width=8,
                ),
                lines(
                    "Telemetry errors", "ops",
                    [Query("sum by (signal) (rate(mageflow_telemetry_errors_total{S}[R]))", "{{signal}}")],
                    "Failures inside telemetry, by what was to be recorded. They never reach a task, but leave gaps in "
                    "what you see.",
                    colour="orange", height=6,
                ),
                table(
                    "Folded label values", "short",
                    "sum by (label) (increase(mageflow_telemetry_dropped_label_values_total{S}[$__range])) > 0",
                    (("label", "label"),), "folded in range",
                    "Label values that were not declared, or came after the label was full, and were counted as "
                    "__other__ instead. Empty is good.",
                    height=6, steps=((1, "orange"),), empty="nothing folded",
                ),
            ),
        ),
        Section(
            "Engine backlog (needs Hatchet's own metrics)",
            (
                lines(
                    "Engine backlog by workflow", "short",
                    [Query("sum by (workflow_name) (hatchet_tenant_queue_size)", "{{workflow_name}}")],
                    "Items queued inside Hatchet. Only a self-hosted engine with SERVER_PROMETHEUS_ENABLED exports "
                    "this, under its own job, so the job and instance filters do not apply.",
                    width=24,
                ),
            ),
            collapsed=True,
        ),
    ),
)  # fmt: skip
