"""Alerts about signatures, flows and callbacks."""

from dashboards.generator.rules import Alert, Thresholds

_TASK = "mageflow-task"
_FLOWS = "mageflow-flows"


def flow_alerts(at: Thresholds) -> tuple[Alert, ...]:
    """Signatures, flows and callbacks that get lost."""
    return (
        Alert(
            "MageflowSignatureLoadFailing", "critical", "5m",
            'sum by (job, kind) (rate(mageflow_signature_loads_total{result!="hit"}[10m])) / '
            f"sum by (job, kind) (rate(mageflow_signature_loads_total[10m])) > {at.signature_miss_ratio:g}",
            "{{ $value | humanizePercentage }} of {{ $labels.kind }} signatures cannot be loaded",
            "{{ $value | humanizePercentage }} of the loads of {{ $labels.kind }} signatures in job "
            "{{ $labels.job }} find nothing, something invalid, or no Redis.",
            _TASK,
            "Runs arrive whose signature is gone or unreadable; they fail without running their body.",
            (("missing: the signature expired before its run came, or the workers look into another Redis, prefix or "
             "namespace than the one that signed."),
             "invalid: an incompatible version, or somebody else wrote under the key.",
             "error: Redis is away."),
            ("*Signature loads* on the task board tells which of the three it is.",
             "`mageflow.signature.missing` and `mageflow.signature.invalid` in the logs have the signature's id.",
             "For missing ones compare MAGEFLOW_SIGNATURE_TTL_ACTIVE_SECONDS with the queue wait."),
        ),
        Alert(
            "MageflowFlowStuck", "warning", "5m",
            f"max by (job, flow) (mageflow_flow_oldest_active_seconds) > {at.flow_age_seconds:g}",
            "A {{ $labels.flow }} has been open for {{ $value | humanizeDuration }}",
            "The oldest {{ $labels.flow }} of job {{ $labels.job }} that is not closed started "
            "{{ $value | humanizeDuration }} ago.",
            _FLOWS,
            "A flow does not come to its end, or really takes this long.",
            ("A step is suspended and nobody resumes it.", "A swarm was never closed.",
             "Workers for one of its tasks are missing."),
            ("*Swarm items* and *Signatures stored* show what is pending.",
             "Find the flow's trace in *Recent and slow flows*, or its last `mageflow.flow.step_done` in the logs.",
             "Raise the threshold if your flows are meant to run that long."),
        ),
        Alert(
            "MageflowCallbackFailed", "critical", "0m",
            'sum by (job, kind) (increase(mageflow_callbacks_total{result="failed"}[10m])) > 0',
            "{{ $labels.kind }} callbacks of {{ $labels.job }} failed",
            "{{ $value | humanize }} {{ $labels.kind }} callbacks of job {{ $labels.job }} could not be enqueued in "
            "the last ten minutes, or failed for good in their own task.",
            _FLOWS,
            "Work that should follow a task was not done. A callback counts as failed only when trying again cannot "
            "help: while Hatchet is away it stays in the outbox and is sent later.",
            ("The signature or flow to call back expired or was removed.",
             "The callback's task is not known to any worker.", "The callback's task itself failed."),
            ("`mageflow.callback.failed` in the logs names the target and the error type.",
             "*Enqueues by source* shows whether all enqueues fail or callbacks alone."),
        ),
    )  # fmt: skip
