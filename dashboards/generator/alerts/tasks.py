"""Alerts about tasks that fail, and about timeouts."""

from dashboards.generator.rules import Alert, Thresholds

_TASK = "mageflow-task"
_STAGGER = "mageflow-stagger"


def task_alerts(at: Thresholds) -> tuple[Alert, ...]:
    """Tasks that fail."""
    return (
        Alert(
            "MageflowTaskErrorRatio", "warning", "10m",
            f"task:mageflow_task_success:ratio_rate5m < {at.success_ratio:g} and on (job, task) "
            "sum by (job, task) (task:mageflow_task_runs:rate5m) > 0.02",
            "{{ $labels.task }} succeeds in only {{ $value | humanizePercentage }} of its runs",
            "Of the settled attempts of {{ $labels.task }} (job {{ $labels.job }}) in the last five minutes only "
            "{{ $value | humanizePercentage }} succeeded; retried and cancelled attempts are not counted.",
            _TASK,
            "A task fails or times out in a noticeable share of its runs, at more than one run in 50 s.",
            ("A dependency of the task is down.", "A deployment changed the task or its input.",
             "Its timeout is too short for what it now does."),
            (("Open the task's board: *Failures by exception* names the class, *Outcomes* tells failures from "
             "timeouts."),
             ("Click an exemplar on *Duration p95* with outcome error: the trace shows the attempt and where it "
             "failed."),
             "Search the logs for `mageflow.task.failed` with this task; `trace_id` joins them with the trace."),
        ),
        Alert(
            "MageflowErrorBudgetBurn", "critical", "2m",
            f"(1 - task:mageflow_task_success:ratio_rate5m) > {at.error_budget_burn:g} and "
            f"(1 - task:mageflow_task_success:ratio_rate1h) > {at.error_budget_burn:g}",
            "{{ $labels.task }} burns its error budget: {{ $value | humanizePercentage }} of runs fail",
            "{{ $value | humanizePercentage }} of the settled attempts of {{ $labels.task }} (job {{ $labels.job }}) "
            "fail, over five minutes and over an hour alike. At this rate a monthly budget of 1 % is spent in two "
            "days.",
            _TASK,
            "The error share is far above a 99 % objective in a short and in a long window, so it is neither a blip "
            "nor long over.",
            ("As MageflowTaskErrorRatio, but larger or longer.",),
            ("Work through MageflowTaskErrorRatio.",
             "If a deployment is the cause, roll it back first and look for the reason afterwards.",
             "Failed runs can be replayed from Hatchet once the cause is gone."),
        ),
    )  # fmt: skip


def timeout_alerts(at: Thresholds) -> tuple[Alert, ...]:
    """Timeouts that come near, or happen."""
    return (
        Alert(
            "MageflowTimeoutExtensionFailing", "critical", "5m",
            'sum by (job) (rate(mageflow_timeout_extensions_total{result="error"}[5m])) / '
            f"sum by (job) (rate(mageflow_timeout_extensions_total[5m])) > {at.extension_error_ratio:g}",
            "{{ $value | humanizePercentage }} of timeout extensions of {{ $labels.job }} fail",
            "Hatchet did not grant {{ $value | humanizePercentage }} of the requests for more execution time from "
            "job {{ $labels.job }}. Staggered tasks run with their delay cut short, and may time out.",
            _STAGGER,
            "Workers cannot extend timeouts, so stagger delays no longer come on top of the task's own time.",
            ("Hatchet is overloaded or unreachable.", "The token lost its rights.",
             "Attempts were already cancelled when they asked."),
            ("Search the logs for `mageflow.timeout.extension_failed`; `error_type` says what happened.",
             "*Extension request p95* tells slow from refused.", "Check the health of the engine."),
        ),
        Alert(
            "MageflowTasksNearTimeout", "warning", "5m",
            "sum by (job, task) (mageflow_tasks_near_timeout) > 0",
            "{{ $value }} attempts of {{ $labels.task }} are near their timeout",
            "For five minutes there has been an attempt of {{ $labels.task }} (job {{ $labels.job }}) that has used "
            "most of its timeout; {{ $value }} now.",
            _STAGGER,
            "Attempts of a task regularly come close to their timeout, or one hangs there.",
            ("The task got slower.", "The timeout was set for the ordinary case only."),
            ("*Timeout budget used p95* on the task's board shows since when.",
             "Raise `execution_timeout`, or split the task."),
        ),
        Alert(
            "MageflowTaskTimeouts", "warning", "0m",
            'sum by (job, task) (increase(mageflow_task_runs_total{outcome="timed_out"}[15m])) > '
            f"{at.timeouts_in_15m:g}",
            "{{ $labels.task }} timed out {{ $value | humanize }} times in 15 minutes",
            "{{ $value | humanize }} attempts of {{ $labels.task }} (job {{ $labels.job }}) ran into their execution "
            "timeout in the last 15 minutes.",
            _STAGGER,
            "Attempts do not finish in the time they are given.",
            ("A dependency hangs without a timeout of its own.", "The timeout is too short.",
             "Extensions for stagger delays failed."),
            ("`mageflow.task.timed_out` in the logs has the phase the attempt was in: stagger, lock_wait or running.",
             "Look at *Failed extensions* when the phase is stagger, at the locks board when it is lock_wait.",
             "Synchronous bodies go on in their thread after a timeout: see MageflowOrphanThreads."),
        ),
    )  # fmt: skip
