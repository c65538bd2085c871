"""Alerts about failing tasks and about timeouts."""

from dashboards.generator.rules import Alert, Thresholds

_TASK = "mageflow-task"
_STAGGER = "mageflow-stagger"


def task_alerts(limits: Thresholds) -> tuple[Alert, ...]:
    """Alerts about tasks that fail."""
    return (
        Alert(
            name="MageflowTaskErrorRatio",
            severity="warning",
            wait="10m",
            expr=(
                f"task:mageflow_task_success:ratio_rate5m < {limits.success_ratio:g} and on (job, task) "
                "sum by (job, task) (task:mageflow_task_runs:rate5m) > 0.02"
            ),
            summary="Only {{ $value | humanizePercentage }} of the runs of {{ $labels.task }} succeed",
            description=(
                "In the last five minutes {{ $value | humanizePercentage }} of the settled attempts of "
                "{{ $labels.task }} (job {{ $labels.job }}) succeeded. Retried and cancelled attempts are not counted."
            ),
            board=_TASK,
            meaning=(
                "A noticeable share of the attempts of a task fails or times out, and the task runs more than once in "
                "50 seconds."
            ),
            causes=(
                "A service that the task needs is down.",
                "A deployment changed the task or its input.",
                "The timeout is too short for the work the task does now.",
            ),
            steps=(
                (
                    "Open the task's board. *Failures by exception* shows the exception class; *Outcomes* separates "
                    "failures from timeouts."
                ),
                (
                    "Click an exemplar of a line with outcome error on *Duration p95 by task and outcome*. The trace "
                    "shows the attempt and where it failed."
                ),
                "Search the logs for `mageflow.task.failed` with this task. Its `trace_id` is the trace's.",
            ),
        ),
        Alert(
            name="MageflowErrorBudgetBurn",
            severity="critical",
            wait="2m",
            expr=(
                f"(1 - task:mageflow_task_success:ratio_rate5m) > {limits.error_budget_burn:g} and "
                f"(1 - task:mageflow_task_success:ratio_rate1h) > {limits.error_budget_burn:g}"
            ),
            summary="{{ $labels.task }} uses up its error budget: {{ $value | humanizePercentage }} of runs fail",
            description=(
                "{{ $value | humanizePercentage }} of the settled attempts of {{ $labels.task }} (job "
                "{{ $labels.job }}) fail, over five minutes and over one hour. At this rate a monthly error budget of "
                "1 % is used up in two days."
            ),
            board=_TASK,
            meaning=(
                "The error share is far above a 99 % objective, in a short and in a long window. So the problem lasts, "
                "and it is not over yet."
            ),
            causes=("The same as for MageflowTaskErrorRatio, but more severe or longer.",),
            steps=(
                "Follow the steps of MageflowTaskErrorRatio.",
                "If a deployment is the cause, roll it back first and analyse it afterwards.",
                "Replay the failed runs in Hatchet when the cause is removed.",
            ),
        ),
    )


def timeout_alerts(limits: Thresholds) -> tuple[Alert, ...]:
    """Alerts about attempts that reach or nearly reach their timeout."""
    return (
        Alert(
            name="MageflowTimeoutExtensionFailing",
            severity="critical",
            wait="5m",
            expr=(
                'sum by (job) (rate(mageflow_timeout_extensions_total{result="error"}[5m])) / '
                f"sum by (job) (rate(mageflow_timeout_extensions_total[5m])) > {limits.extension_error_ratio:g}"
            ),
            summary="{{ $value | humanizePercentage }} of timeout extensions of {{ $labels.job }} fail",
            description=(
                "Hatchet did not grant {{ $value | humanizePercentage }} of the timeout extensions that job "
                "{{ $labels.job }} requested. Staggered tasks run with a shortened delay and may time out."
            ),
            board=_STAGGER,
            meaning=(
                "Workers cannot extend timeouts, so the stagger delay is taken from the task's own execution time."
            ),
            causes=(
                "Hatchet is overloaded or unreachable.",
                "The API token lost its permissions.",
                "The attempts were already cancelled when they requested the extension.",
            ),
            steps=(
                "Search the logs for `mageflow.timeout.extension_failed`. Its `error_type` is the reason.",
                "*Extension request p95* shows whether requests are slow or rejected.",
                "Check the health of Hatchet.",
            ),
        ),
        Alert(
            name="MageflowTasksNearTimeout",
            severity="warning",
            wait="5m",
            expr="sum by (job, task) (mageflow_tasks_near_timeout) > 0",
            summary="{{ $value }} attempts of {{ $labels.task }} are near their timeout",
            description=(
                "For five minutes, at least one attempt of {{ $labels.task }} (job {{ $labels.job }}) has used most "
                "of its timeout; {{ $value }} now."
            ),
            board=_STAGGER,
            meaning="Attempts of a task often come close to their timeout, or one of them hangs.",
            causes=("The task became slower.", "The timeout leaves no room for slow runs."),
            steps=(
                "*Timeout budget used p95* on the task's board shows when it began.",
                "Raise `execution_timeout`, or split the task.",
            ),
        ),
        Alert(
            name="MageflowTaskTimeouts",
            severity="warning",
            wait="0m",
            expr=(
                'sum by (job, task) (increase(mageflow_task_runs_total{outcome="timed_out"}[15m])) > '
                f"{limits.timeouts_in_15m:g}"
            ),
            summary="{{ $labels.task }} timed out {{ $value | humanize }} times in 15 minutes",
            description=(
                "{{ $value | humanize }} attempts of {{ $labels.task }} (job {{ $labels.job }}) reached their "
                "execution timeout in the last 15 minutes."
            ),
            board=_STAGGER,
            meaning="Attempts do not finish within their timeout.",
            causes=(
                "A call to another service hangs and has no timeout of its own.",
                "The timeout is too short.",
                "Timeout extensions for stagger delays failed.",
            ),
            steps=(
                "`mageflow.task.timed_out` in the logs has the phase of the attempt: stagger, lock_wait or running.",
                "If the phase is stagger, look at *Failed extensions*; if it is lock_wait, at the locks board.",
                "A synchronous task continues in its thread after a timeout: see MageflowOrphanThreads.",
            ),
        ),
    )
