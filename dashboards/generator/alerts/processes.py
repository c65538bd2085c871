"""Alerts about worker processes and telemetry."""

from dashboards.generator.rules import Alert, Thresholds

_TASK = "mageflow-task"
_OVERVIEW = "mageflow-overview"


def process_alerts(at: Thresholds) -> tuple[Alert, ...]:
    """Processes and telemetry that fail."""
    return (
        Alert(
            "MageflowLoopBlocked", "critical", "5m",
            "histogram_quantile(0.99, sum by (job, instance, le) "
            f"(rate(mageflow_event_loop_lag_seconds_bucket[5m]))) > {at.loop_lag_seconds:g}",
            "The event loop of {{ $labels.instance }} is blocked for {{ $value | humanizeDuration }}",
            "The loop that runs the tasks of {{ $labels.instance }} (job {{ $labels.job }}) wakes up "
            "{{ $value | humanizeDuration }} late.",
            _OVERVIEW,
            "Something blocks the worker's event loop: timeouts, heartbeats, lease renewals and every other async "
            "task of the process wait for it.",
            ("A synchronous call (requests, time.sleep, a CPU-bound loop) inside an `async def` task.",
             "The process gets too little CPU."),
            ("*Where slots go* and *Heaviest tasks* for the tasks that run there.",
             "Make the task a plain `def`: it then runs in a thread.",
             "`py-spy dump` on the process shows the call that blocks."),
        ),
        Alert(
            "MageflowOrphanThreads", "warning", "10m",
            "sum by (job, task) (mageflow_task_orphan_threads) > 0",
            "{{ $value }} cancelled runs of {{ $labels.task }} still occupy threads",
            "{{ $value }} synchronous bodies of {{ $labels.task }} (job {{ $labels.job }}) go on although their "
            "attempt was cancelled or timed out.",
            _TASK,
            "Python cannot stop a thread. Each of these keeps one of the worker's threads, and may still write.",
            ("A synchronous task without timeouts on its own calls.",),
            ("Give the calls in the task timeouts shorter than the task's.",
             "Let the body ask whether it was cancelled: take the context and look at `ctx.exit_flag`.",
             "Restart the worker to be rid of them."),
        ),
        Alert(
            "MageflowWorkerUnreachable", "warning", "5m",
            "up == 0 and on (job, instance) max_over_time(mageflow_worker_info[1h]) == 1",
            "The worker at {{ $labels.instance }} does not answer",
            "{{ $labels.instance }} (job {{ $labels.job }}) was a mageflow worker within the last hour and its "
            "metrics cannot be scraped.",
            _OVERVIEW,
            "A worker is gone or hangs, or its endpoint cannot be reached.",
            ("It was stopped on purpose and is still in the scrape configuration.", "It was killed.",
             "Its host or network is gone."),
            ("Look at the process, and at its last lines of log.",
             "In Hatchet the worker shows as inactive when it is really gone; its runs are reassigned."),
        ),
        Alert(
            "MageflowClusterViewLost", "warning", "5m",
            "sum by (job) (mageflow_cluster_leader) != 1",
            "{{ $value }} workers of {{ $labels.job }} export the cluster view instead of one",
            "{{ $value }} workers of job {{ $labels.job }} say they are leader for the cluster view (stored "
            "signatures, active flows, orphaned locks). With none those panels are empty, with several they may "
            "disagree.",
            _OVERVIEW,
            "The gauges about the whole cluster are missing or doubled. Tasks are not affected.",
            ("Redis is away, so nobody holds the leader's lease.",
             "Workers with different Redis servers or prefixes are scraped under one job name."),
            ("`mageflow.cluster.leader` in the logs tells who became leader and who lost it.",
             "Give workers of separate installations separate job names."),
        ),
        Alert(
            "MageflowTelemetryErrors", "info", "15m",
            "sum by (job, signal) (rate(mageflow_telemetry_errors_total[15m])) > 0",
            "Telemetry of {{ $labels.job }} fails: {{ $labels.signal }}",
            "Recording {{ $labels.signal }} failed {{ $value | humanize }} times per second in job "
            "{{ $labels.job }}. No task is affected, but what you see has gaps.",
            _OVERVIEW,
            "mageflow caught failures inside its own telemetry.",
            ("A span processor, log processor or collector of yours raises.", "The series limit was reached."),
            ("`mageflow.telemetry.error` in the logs has the site and the error type, once a minute each.",),
        ),
        Alert(
            "MageflowLabelsFolded", "info", "0m",
            "sum by (job, label) (increase(mageflow_telemetry_dropped_label_values_total[1h])) > 0",
            "Values of the label {{ $labels.label }} were folded into __other__",
            "{{ $value | humanize }} values of {{ $labels.label }} in job {{ $labels.job }} were counted as "
            "__other__ in the last hour.",
            _OVERVIEW,
            "A label met undeclared values, or more values than it may have. Numbers are right, their split is not.",
            ("Exception classes or flow names made up at run time.", "A task that this worker does not declare."),
            ("`mageflow.telemetry.label_folded` in the logs names the label.",
             "Use fixed names; put what varies into attributes of spans."),
        ),
    )  # fmt: skip
