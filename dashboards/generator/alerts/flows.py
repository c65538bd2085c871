"""Alerts about signatures, flows and callbacks."""

from dashboards.generator.queries import increase_from_zero
from dashboards.generator.rules import Alert, Thresholds

_TASK = "mageflow-task"
_FLOWS = "mageflow-flows"

_ALL_LOADS = "mageflow_signature_loads_total"
_LOADS = f"sum by (job, kind) ({increase_from_zero(_ALL_LOADS, '', '10m', '600')})"
_NOT_LOADED = f"""sum by (job, kind) ({increase_from_zero(_ALL_LOADS + '{result!="hit"}', "", "10m", "600")})"""
_CALLBACKS = increase_from_zero('mageflow_callbacks_total{result="failed"}', "", "10m", "600")

_FLOW = "namespace, flow, flow_name"
_ENDED = f"sum by ({_FLOW}) ({increase_from_zero('mageflow_flows_finished_total', '', '1h', '3600')})"
_STARTED = f"sum by ({_FLOW}) (max_over_time(mageflow_flows_started_total[6h])) > 0"
"""Not the growth: a sender's counter may appear with all its starts, and must not look missing then."""


def flow_alerts(limits: Thresholds) -> tuple[Alert, ...]:
    """Alerts about signatures that cannot be loaded, open flows and failed callbacks."""
    return (
        Alert(
            name="MageflowSignatureLoadFailing",
            severity="critical",
            wait="2m",
            expr=(
                f"{_NOT_LOADED} / {_LOADS} > {limits.signature_miss_ratio:g} "
                f"and {_NOT_LOADED} > {limits.least_failures - 0.5:g}"
            ),
            summary="{{ $value | humanizePercentage }} of {{ $labels.kind }} signatures cannot be loaded",
            description=(
                "{{ $value | humanizePercentage }} of the loads of {{ $labels.kind }} signatures in job "
                "{{ $labels.job }} failed in ten minutes: the signature is missing or invalid, or Redis is unavailable."
            ),
            board=_TASK,
            meaning="Runs start whose signature is gone or unreadable. They fail before their function is called.",
            causes=(
                (
                    "missing: the signature expired before its run started, or the workers use another Redis, key "
                    "prefix or namespace than the program that signed."
                ),
                "invalid: another, incompatible version of mageflow wrote it, or another program uses the key.",
                "error: Redis is unavailable.",
            ),
            steps=(
                "*Signature loads* on the task board shows which of the three it is.",
                "`mageflow.signature.missing` and `mageflow.signature.invalid` in the logs have the signature's id.",
                "If signatures are missing, compare MAGEFLOW_SIGNATURE_TTL_ACTIVE_SECONDS with the queue wait.",
            ),
        ),
        Alert(
            name="MageflowFlowStuck",
            severity="warning",
            wait="5m",
            expr=f"max by (job, flow) (mageflow_flow_oldest_active_seconds) > {limits.flow_age_seconds:g}",
            summary="A {{ $labels.flow }} has been open for {{ $value | humanizeDuration }}",
            description=(
                "The oldest open {{ $labels.flow }} of job {{ $labels.job }} started "
                "{{ $value | humanizeDuration }} ago."
            ),
            board=_FLOWS,
            meaning="A flow does not end, or its work takes this long.",
            causes=(
                "A step is suspended and was not resumed.",
                "A swarm was not closed.",
                "There is no worker for one of its tasks.",
            ),
            steps=(
                "*Swarm items* and *Signatures stored* show what is pending.",
                "Find the flow's trace in *Recent and slow flows*, or its last `mageflow.flow.step_done` in the logs.",
                "If your flows are meant to run that long, raise the threshold.",
            ),
        ),
        Alert(
            name="MageflowCallbackFailed",
            severity="warning",
            wait="0m",
            expr=f"sum by (job, kind) ({_CALLBACKS}) > 0",
            summary="{{ $labels.kind }} callbacks of {{ $labels.job }} failed",
            description=(
                "In the last ten minutes {{ $value | humanize }} {{ $labels.kind }} callbacks of job "
                "{{ $labels.job }} could not be enqueued, or their own task failed without further retries."
            ),
            board=_FLOWS,
            meaning=(
                "Work that should follow a task was not done. A callback counts as failed only if a retry cannot "
                "help: while Hatchet is unavailable, callbacks stay in the outbox and are sent later."
            ),
            causes=(
                "The signature or flow of the callback expired or was removed.",
                "No worker knows the callback's task.",
                "The callback's task itself failed.",
            ),
            steps=(
                "`mageflow.callback.failed` in the logs has the target and the error type.",
                "*Enqueues by source* shows whether all enqueues fail or only those of callbacks.",
            ),
        ),
        Alert(
            name="MageflowSenderMissing",
            severity="info",
            wait="15m",
            expr=f"{_ENDED} >= {limits.unseen_flows:g} unless on ({_FLOW}) {_STARTED}",
            summary="A program that starts {{ $labels.flow_name }} is not scraped",
            description=(
                "{{ $value | humanize }} of the {{ $labels.flow }} {{ $labels.flow_name }} ended in the last hour, and "
                "no process that was scraped in six hours has counted a start."
            ),
            board=_FLOWS,
            meaning=(
                "The metrics of a sender do not reach Prometheus: its enqueues, the flows it starts and the locks it "
                "takes are missing on the boards. Work is not affected."
            ),
            causes=(
                "A web application or a script sends work and serves no metrics.",
                "It serves them, and Prometheus does not scrape it.",
                "Another Prometheus scrapes it.",
            ),
            steps=(
                (
                    "Serve the metrics of the sender: `client.telemetry.serve(name)`, or mount "
                    "`client.telemetry.asgi_app()` in a web application."
                ),
                "*Enqueues by source* on the overview shows which sources are counted at all.",
            ),
        ),
    )
