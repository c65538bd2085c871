"""Alerts about failing tasks and about timeouts."""

from dashboards.generator.queries import increase_from_zero
from dashboards.generator.recordings import OBJECTIVE, attempts
from dashboards.generator.rules import Alert, Thresholds

_TASK = "mageflow-task"
_STAGGER = "mageflow-stagger"

_BUDGET = f"(1 - scalar({OBJECTIVE}))"

_RUNS = "mageflow_task_runs_total"
_TIMED_OUT = f"""sum by (job, task) ({increase_from_zero(_RUNS + '{outcome="timed_out"}', "", "15m", "900")})"""
_SETTLED = f"""sum by (job, task) ({
    increase_from_zero(_RUNS + '{outcome=~"succeeded|failed|timed_out"}', "", "15m", "900")
})"""
_EXTENSIONS = "mageflow_timeout_extensions_total"
_REFUSED = f"""sum by (job) ({increase_from_zero(_EXTENSIONS + '{result="error"}', "", "15m", "900")})"""
_REQUESTED = f"sum by (job) ({increase_from_zero(_EXTENSIONS, '', '15m', '900')})"


def _burns(limits: Thresholds, long: str, short: str, factor: str, *, known_for: str) -> str:
    """Tasks that use up their error budget too fast, in a long and in a short window; the error ratio of the long one.

    The long window shows that the problem is large, the short one that it is not over yet. A task without enough
    attempts or failures in the long window is left out: its ratio says nothing. So is a task that Prometheus has not
    known for a good part of the long window: one bad moment would be most of what it knows.
    """
    ratios = {window: f"{attempts('errors', window)} / {attempts('settled', window)}" for window in (long, short)}
    # `increase` extrapolates, so a count is compared with a number between two counts.
    enough = (
        f"{attempts('settled', long)} > {limits.least_runs - 0.5:g} and "
        f"{attempts('errors', long)} > {limits.least_failures - 0.5:g} and "
        f"present_over_time({attempts('settled', '5m')}[10m] offset {known_for})"
    )
    return f"{ratios[long]} > {factor} * {_BUDGET} and {ratios[short]} > {factor} * {_BUDGET} and {enough}"


def task_alerts(limits: Thresholds) -> tuple[Alert, ...]:
    """Alerts about tasks that fail."""
    return (
        Alert(
            name="MageflowErrorBudgetBurn",
            severity="critical",
            wait="2m",
            expr=(
                f"({_burns(limits, '1h', '5m', '14.4', known_for='30m')}) or "
                f"({_burns(limits, '6h', '30m', '6', known_for='2h')})"
            ),
            summary="{{ $labels.task }} uses up its error budget: {{ $value | humanizePercentage }} of runs fail",
            description=(
                "{{ $value | humanizePercentage }} of the settled attempts of {{ $labels.task }} (job "
                "{{ $labels.job }}) fail. At this rate the error budget of a month is used up in five days or less. "
                "Retried and cancelled attempts are not counted."
            ),
            board=_TASK,
            meaning=(
                "The task fails so often that the error budget of a month lasts two days (14.4 times too fast, over "
                "one hour and five minutes) or five days (6 times too fast, over six hours and 30 minutes). The "
                "objective is the recording rule `mageflow:task_objective:ratio`; "
                "`mageflow dashboards export --slo 99.5` sets it."
            ),
            causes=(
                "A service that the task needs is down.",
                "A deployment changed the task or its input.",
                "The timeout is too short for the work the task does now.",
            ),
            steps=(
                (
                    "Open the task's board. *Failures by exception* shows the exception class; *Attempts by outcome* "
                    "separates failures from timeouts."
                ),
                (
                    "Click an exemplar of a line with outcome error on *Duration p95 by task and outcome*. The trace "
                    "shows the attempt and where it failed."
                ),
                "Search the logs for `mageflow.task.failed` with this task. Its `trace_id` is the trace's.",
                "If a deployment is the cause, roll it back first and analyse it afterwards.",
                "Replay the failed runs in Hatchet when the cause is removed.",
            ),
        ),
        Alert(
            name="MageflowErrorBudgetBurnSlow",
            severity="warning",
            wait="15m",
            expr=(
                f"({_burns(limits, '1d', '2h', '3', known_for='8h')}) or "
                f"({_burns(limits, '3d', '6h', '1', known_for='1d')})"
            ),
            summary="{{ $labels.task }} misses its objective: {{ $value | humanizePercentage }} of runs fail",
            description=(
                "{{ $value | humanizePercentage }} of the settled attempts of {{ $labels.task }} (job "
                "{{ $labels.job }}) fail, for hours or days. If this goes on, the error budget of the month is not "
                "enough. Retried and cancelled attempts are not counted."
            ),
            board=_TASK,
            meaning=(
                "The task fails more often than its objective allows: 3 times over one day and two hours, or just "
                "more over three days and six hours. It can wait for working hours."
            ),
            causes=(
                "Some inputs always fail.",
                "A service that the task needs fails from time to time, and the task has too few retries.",
            ),
            steps=(
                "*Failures by exception* on the task's board shows which failures are the most frequent.",
                "Give the task retries with a backoff, or mend what fails.",
                "If users accept these failures, set a lower objective.",
            ),
        ),
        Alert(
            name="MageflowTaskOnlyFails",
            severity="warning",
            wait="15m",
            expr=(
                f"{attempts('errors', '3d')} > 1.5 and {attempts('settled', '3d')} - {attempts('errors', '3d')} < 0.5"
            ),
            summary="No run of {{ $labels.task }} has succeeded in three days",
            description=(
                "{{ $value | humanize }} attempts of {{ $labels.task }} (job {{ $labels.job }}) have failed in three "
                "days, and none has succeeded."
            ),
            board=_TASK,
            meaning="A task that runs too rarely for an error budget fails each time, for example a nightly job.",
            causes=(
                "The task is new and has never worked.",
                "A credential expired, or an input is missing.",
            ),
            steps=(
                "Search the logs for `mageflow.task.failed` with this task. Its `trace_id` is the trace's.",
                "Run the task by hand when the cause is removed.",
            ),
        ),
    )


def timeout_alerts(limits: Thresholds) -> tuple[Alert, ...]:
    """Alerts about attempts that reach or nearly reach their timeout."""
    return (
        Alert(
            name="MageflowTimeoutExtensionFailing",
            severity="critical",
            wait="2m",
            expr=(
                f"{_REFUSED} / {_REQUESTED} > {limits.extension_error_ratio:g} "
                f"and {_REFUSED} > {limits.least_failures - 0.5:g}"
            ),
            summary="{{ $value | humanizePercentage }} of timeout extensions of {{ $labels.job }} fail",
            description=(
                "Hatchet did not grant {{ $value | humanizePercentage }} of the timeout extensions that job "
                "{{ $labels.job }} requested in 15 minutes. Staggered tasks run with a shortened delay and may "
                "time out."
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
            expr=(
                "sum by (job, task) (mageflow_tasks_near_timeout) / sum by (job, task) (mageflow_tasks_in_flight) "
                f"> {limits.near_timeout_share:g}"
            ),
            summary="{{ $value | humanizePercentage }} of the running attempts of {{ $labels.task }} are near timeout",
            description=(
                "For five minutes, {{ $value | humanizePercentage }} of the running attempts of {{ $labels.task }} "
                "(job {{ $labels.job }}) have used most of their timeout."
            ),
            board=_STAGGER,
            meaning="Most attempts of a task come close to their timeout, or the only one hangs.",
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
            expr=(f"{_TIMED_OUT} > {limits.timeouts_in_15m:g} and {_TIMED_OUT} / {_SETTLED} > {_BUDGET}"),
            summary="{{ $labels.task }} timed out {{ $value | humanize }} times in 15 minutes",
            description=(
                "{{ $value | humanize }} attempts of {{ $labels.task }} (job {{ $labels.job }}) reached their "
                "execution timeout in the last 15 minutes."
            ),
            board=_STAGGER,
            meaning="More attempts do not finish within their timeout than the objective of the task allows.",
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
