"""All alerts, one module per subject."""

from dashboards.generator.alerts import capacity, flows, locks, processes, tasks
from dashboards.generator.rules import Alert, Thresholds


def alerts(thresholds: Thresholds | None = None) -> tuple[Alert, ...]:
    """Every alert with these thresholds, in the order of the runbook."""
    limits = thresholds or Thresholds()
    return (
        *tasks.task_alerts(limits),
        *capacity.capacity_alerts(limits),
        *tasks.timeout_alerts(limits),
        *locks.deadlock_alerts(limits),
        *locks.lock_alerts(limits),
        *flows.flow_alerts(limits),
        *processes.process_alerts(limits),
    )
