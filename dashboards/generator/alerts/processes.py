"""Alerts about worker processes and telemetry."""

from dashboards.generator.queries import increase_from_zero
from dashboards.generator.rules import Alert, Thresholds

_TASK = "mageflow-task"
_OVERVIEW = "mageflow-overview"

_DROPPED = "mageflow_telemetry_dropped_label_values_total"
_FOLDED = increase_from_zero(f'{_DROPPED}{{label!="__series__"}}', "", "1h", "3600")
_ABOVE_THE_LIMIT = increase_from_zero(f'{_DROPPED}{{label="__series__"}}', "", "1h", "3600")


def process_alerts(limits: Thresholds) -> tuple[Alert, ...]:
    """Alerts about processes that are blocked or gone, and about failures inside telemetry."""
    return (
        Alert(
            name="MageflowLoopBlocked",
            severity="critical",
            wait="5m",
            expr=(
                # The lag is only observed when the loop wakes up again: no observation is the worst lag.
                "(histogram_quantile(0.99, sum by (job, instance, le) "
                f"(rate(mageflow_event_loop_lag_seconds_bucket[5m]))) > {limits.loop_lag_seconds:g} or "
                "sum by (job, instance) (rate(mageflow_event_loop_lag_seconds_count[5m])) == 0) "
                "and on (job, instance) mageflow_worker_info"
            ),
            summary="The event loop of {{ $labels.instance }} is blocked",
            description=(
                "The event loop that runs the tasks of {{ $labels.instance }} (job {{ $labels.job }}) wakes up "
                f"more than {limits.loop_lag_seconds:g} s late, or has not woken up for five minutes."
            ),
            board=_OVERVIEW,
            meaning=(
                "Something blocks the worker's event loop. Timeouts, heartbeats, lease renewals and all other async "
                "tasks of the process wait for it."
            ),
            causes=(
                "A synchronous call (requests, time.sleep, a CPU-bound loop) in an `async def` task.",
                "The process gets too little CPU.",
            ),
            steps=(
                "*Where slots go* and *Heaviest tasks* show the tasks that run there.",
                "Make the task a plain `def`: it then runs in a thread.",
                "`py-spy dump` on the process shows the call that blocks.",
            ),
        ),
        Alert(
            name="MageflowOrphanThreads",
            severity="warning",
            wait="10m",
            expr="sum by (job, task) (mageflow_task_orphan_threads) > 0",
            summary="{{ $value }} cancelled runs of {{ $labels.task }} still occupy threads",
            description=(
                "{{ $value }} synchronous functions of {{ $labels.task }} (job {{ $labels.job }}) still run although "
                "their attempt was cancelled or timed out."
            ),
            board=_TASK,
            meaning=(
                "Python cannot stop a thread. Each of these functions occupies one of the worker's threads and may "
                "still write."
            ),
            causes=("A synchronous task makes calls without timeouts.",),
            steps=(
                "Give the calls in the task timeouts shorter than the task's.",
                "Let the function check for cancellation: take the context and read `ctx.exit_flag`.",
                "Restart the worker to stop the threads.",
            ),
        ),
        Alert(
            name="MageflowWorkerUnreachable",
            severity="warning",
            wait="5m",
            expr=('up{discovery!="fixed"} == 0 and on (job, instance) max_over_time(mageflow_worker_info[1h]) == 1'),
            summary="The worker at {{ $labels.instance }} does not answer",
            description=(
                "{{ $labels.instance }} (job {{ $labels.job }}) was a mageflow worker within the last hour, and its "
                "metrics cannot be scraped."
            ),
            board=_OVERVIEW,
            meaning="A worker is gone or hangs, or its metrics endpoint cannot be reached.",
            causes=(
                "It was killed, or it hangs.",
                "Its host or network is down.",
                (
                    "It was stopped on purpose, but its address is still in the scrape configuration. Discovery "
                    "(Kubernetes, or the files of MAGEFLOW_METRICS_SD_DIR) removes it. In a fixed list of targets, "
                    "set the label `discovery: fixed`: this alert then leaves them out."
                ),
            ),
            steps=(
                "Check the process and the last lines of its log.",
                "If the worker is gone, Hatchet shows it as inactive and reassigns its runs.",
            ),
        ),
        Alert(
            name="MageflowClusterViewLost",
            severity="warning",
            wait="5m",
            expr="sum by (namespace) (mageflow_cluster_leader) == 0",
            summary="No worker exports the cluster view",
            description=(
                "No worker is leader for the cluster view (stored signatures, active flows, orphaned locks). Those "
                "panels are empty, and MageflowFlowStuck and MageflowLockOrphaned cannot fire."
            ),
            board=_OVERVIEW,
            meaning=(
                "The gauges about the whole cluster are missing. Tasks are not affected. One leader is enough for all "
                "jobs that share a Redis, so this looks at all of them together: at those of one Kubernetes namespace "
                "if Prometheus sets the label `namespace`."
            ),
            causes=("Redis is unavailable, so no worker has the leader's lease.",),
            steps=(
                "`mageflow.cluster.leader` in the logs shows which worker became leader and which one stopped.",
                "Look at *Redis errors* on the flows board.",
            ),
        ),
        Alert(
            name="MageflowTelemetryErrors",
            severity="info",
            wait="15m",
            expr="sum by (job, signal) (rate(mageflow_telemetry_errors_total[15m])) > 0",
            summary="Telemetry of {{ $labels.job }} fails: {{ $labels.signal }}",
            description=(
                "Recording {{ $labels.signal }} failed {{ $value | humanize }} times per second in job "
                "{{ $labels.job }}. Tasks are not affected, but data is missing."
            ),
            board=_OVERVIEW,
            meaning="mageflow caught errors inside its own telemetry.",
            causes=(
                "One of your span processors, log processors or collectors raises an exception.",
                "The limit of series per process was reached.",
                "Signal `clock`: the clocks of two hosts differ by over a second, so queue waits are wrong.",
            ),
            steps=(
                "`mageflow.telemetry.error` in the logs has the site and the error type, at most once a minute each.",
                "Signal `clock`: *Clock skew by instance* shows the workers; synchronise their clocks (NTP).",
            ),
        ),
        Alert(
            name="MageflowSeriesLimitReached",
            severity="critical",
            wait="0m",
            expr=f"sum by (job, instance) ({_ABOVE_THE_LIMIT}) > 0",
            summary="{{ $labels.instance }} has more series than its limit, so some of its numbers are missing",
            description=(
                "{{ $labels.instance }} (job {{ $labels.job }}) has reached MAGEFLOW_METRICS_MAX_SERIES: in the last "
                "hour {{ $value | humanize }} observations or series had no room of their own."
            ),
            board=_OVERVIEW,
            meaning=(
                "Histograms of further tasks, locks and flows are merged into one with the value `__other__`, so "
                "their quantiles are missing; sums over all tasks are still right. If the limit is far too small, "
                "counters and gauges of locks and flows are missing too, and alerts about them cannot fire. Attempts "
                "by task and outcome are always counted."
            ),
            causes=(
                "The worker serves more tasks than the limit has room for: an active task has about 230 series.",
                "The program declares resources, or names flows, at run time: each name has series of its own.",
            ),
            steps=(
                "*Scrape cost* on the overview shows the number of samples of each worker.",
                (
                    '`count by (__name__) ({__name__=~"mageflow_.+", instance="..."})` shows which metric has the '
                    "series. Use a fixed set of names for resources and flows, and put values that vary into keys."
                ),
                "Otherwise raise `MAGEFLOW_METRICS_MAX_SERIES`, or serve the tasks by more than one kind of worker.",
            ),
        ),
        Alert(
            name="MageflowLabelsFolded",
            severity="info",
            wait="0m",
            expr=f"sum by (job, label) ({_FOLDED}) > 0",
            summary="Values of the label {{ $labels.label }} were counted as __other__",
            description=(
                "In the last hour {{ $value | humanize }} values of {{ $labels.label }} in job {{ $labels.job }} were "
                "counted as __other__."
            ),
            board=_OVERVIEW,
            meaning=(
                "A label got values that were not declared, or more values than its limit. Totals are correct, but "
                "their split by this label is not."
            ),
            causes=(
                "The program creates exception classes or flow names at run time.",
                "A task that this worker does not declare.",
            ),
            steps=(
                "`mageflow.telemetry.label_folded` in the logs has the label.",
                "Use a fixed set of names, and put values that vary into span attributes.",
            ),
        ),
    )
