"""The 25 alerts together, in the order of the runbook."""

from mageflow.grafana import alerts_state, alerts_work
from mageflow.grafana.rules import Alert, Thresholds


def alerts(at: Thresholds | None = None) -> tuple[Alert, ...]:
    """Every alert, with these thresholds."""
    limits = at or Thresholds()
    return (
        *alerts_work.task_alerts(limits),
        *alerts_work.capacity_alerts(limits),
        *alerts_work.timeout_alerts(limits),
        *alerts_state.deadlock_alerts(limits),
        *alerts_state.lock_alerts(limits),
        *alerts_state.flow_alerts(limits),
        *alerts_state.process_alerts(limits),
    )
