"""The 25 alerts together, in the order of the runbook."""

from dashboards.generator.alerts import capacity, flows, locks, processes, tasks
from dashboards.generator.rules import Alert, Thresholds


def alerts(at: Thresholds | None = None) -> tuple[Alert, ...]:
    """Every alert, with these thresholds."""
    limits = at or Thresholds()
    return (
        *tasks.task_alerts(limits),
        *capacity.capacity_alerts(limits),
        *tasks.timeout_alerts(limits),
        *locks.deadlock_alerts(limits),
        *locks.lock_alerts(limits),
        *flows.flow_alerts(limits),
        *processes.process_alerts(limits),
    )
