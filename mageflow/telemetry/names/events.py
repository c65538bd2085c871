"""Every log event: its name, its usual level and its fields.

Fields bound for the whole attempt (`CONTEXT_FIELDS`) are on every record written inside it and are not repeated here.
"""

from dataclasses import dataclass
from typing import Final, Literal

LOGGER: Final = "mageflow"
"""The standard library logger all events go through."""

CONTEXT_FIELDS: Final = (
    "task", "run_id", "step_run_id", "attempt", "worker", "flow", "flow_id", "signature_id",
)  # fmt: skip
"""Bound while an attempt runs; the last three only when there is a flow or a signature."""

TRACE_FIELDS: Final = ("trace_id", "span_id", "trace_sampled")
"""Added by ``add_trace_context``: 32 and 16 hex digits, and a boolean."""

Level = Literal["debug", "info", "warning", "error", "critical"]


@dataclass(frozen=True, slots=True, eq=False)
class LogEvent:
    """One fact that is logged."""

    name: str
    level: Level
    fields: tuple[str, ...] = ()


WORKER_STARTED: Final = LogEvent(
    "mageflow.worker.started", "info", ("version", "tasks", "slots", "metrics_url", "hatchet_instrumentor")
)
WORKER_STOPPING: Final = LogEvent("mageflow.worker.stopping", "info", ("in_flight",))
METRICS_LISTENING: Final = LogEvent("mageflow.metrics.listening", "info", ("addr", "port"))
METRICS_BIND_FAILED: Final = LogEvent("mageflow.metrics.bind_failed", "error", ("addr", "ports_tried", "error_type"))
METRICS_MULTIPROC_ENV: Final = LogEvent("mageflow.metrics.multiproc_env", "warning", ("directory",))
PRIVACY_PAYLOAD_EXPORTED: Final = LogEvent("mageflow.privacy.hatchet_payload_exported", "warning", ("not_excluded",))

TASK_ENQUEUED: Final = LogEvent("mageflow.task.enqueued", "debug", ("target", "source", "batch"))
TASK_ENQUEUE_FAILED: Final = LogEvent(
    "mageflow.task.enqueue_failed", "error", ("target", "source", "batch", "error_type")
)
TASK_STARTED: Final = LogEvent("mageflow.task.started", "info", ("queue_wait_s",))
TASK_FINISHED: Final = LogEvent("mageflow.task.finished", "info", ("outcome", "duration_s"))
TASK_FAILED: Final = LogEvent("mageflow.task.failed", "error", ("exception", "duration_s", "will_retry"))
"""A warning when the engine will retry."""
TASK_TIMED_OUT: Final = LogEvent(
    "mageflow.task.timed_out", "error", ("timeout_s", "extended_s", "elapsed_s", "phase", "will_retry")
)
TASK_CANCELLED: Final = LogEvent("mageflow.task.cancelled", "info", ("phase", "duration_s"))
TASK_SKIPPED: Final = LogEvent("mageflow.task.skipped", "info", ("signature_status",))
TASK_NEAR_TIMEOUT: Final = LogEvent("mageflow.task.near_timeout", "warning", ("used_ratio", "remaining_s"))
TASK_THREAD_ORPHANED: Final = LogEvent("mageflow.task.thread_orphaned", "warning", ("elapsed_s",))

STAGGER_STARTED: Final = LogEvent("mageflow.stagger.started", "info", ("delay_s", "window_s"))
STAGGER_CANCELLED: Final = LogEvent("mageflow.stagger.cancelled", "info", ("slept_s",))
TIMEOUT_EXTENDED: Final = LogEvent("mageflow.timeout.extended", "debug", ("reason", "by_s", "deadline"))
TIMEOUT_EXTENSION_FAILED: Final = LogEvent(
    "mageflow.timeout.extension_failed", "error", ("reason", "by_s", "error_type")
)

SIGNATURE_MISSING: Final = LogEvent("mageflow.signature.missing", "error", ("kind", "signature_id"))
SIGNATURE_INVALID: Final = LogEvent("mageflow.signature.invalid", "error", ("kind", "signature_id", "error_type"))
REDIS_ERROR: Final = LogEvent("mageflow.redis.error", "warning", ("operation", "error_type"))

FLOW_STARTED: Final = LogEvent("mageflow.flow.started", "info", ("name", "steps"))
FLOW_STEP_DONE: Final = LogEvent("mageflow.flow.step_done", "debug", ("step", "handover_s"))
FLOW_FINISHED: Final = LogEvent("mageflow.flow.finished", "info", ("outcome", "duration_s", "steps"))
CALLBACK_FAILED: Final = LogEvent("mageflow.callback.failed", "error", ("kind", "target", "error_type"))
FLOW_RUN_RESENT: Final = LogEvent("mageflow.flow.run_resent", "warning", ("reason", "target", "lost_run_id", "times"))

LOCK_WAITING: Final = LogEvent("mageflow.lock.waiting", "info", ("lock", "resource", "holders"))
LOCK_ACQUIRED: Final = LogEvent("mageflow.lock.acquired", "debug", ("lock", "waited_s"))
LOCK_RELEASED: Final = LogEvent("mageflow.lock.released", "debug", ("lock", "held_s"))
LOCK_TIMEOUT: Final = LogEvent("mageflow.lock.timeout", "warning", ("lock", "waited_s", "holders"))
LOCK_LEASE_LOST: Final = LogEvent("mageflow.lock.lease_lost", "critical", ("lock", "held_s"))
LOCK_ORPHAN_REAPED: Final = LogEvent("mageflow.lock.orphan_reaped", "warning", ("lock", "owner"))

DEADLOCK_DETECTED: Final = LogEvent("mageflow.deadlock.detected", "error", ("cycle", "victim", "policy"))
DEADLOCK_RESOLVED: Final = LogEvent("mageflow.deadlock.resolved", "info", ("resolution", "took_s"))
DEADLOCK_CHECK_FAILED: Final = LogEvent("mageflow.deadlock.check_failed", "warning", ("error_type",))

CLUSTER_LEADER_CHANGED: Final = LogEvent("mageflow.cluster.leader", "info", ("state",))
TELEMETRY_ERROR: Final = LogEvent("mageflow.telemetry.error", "warning", ("signal", "site", "error_type", "suppressed"))
TELEMETRY_LABEL_FOLDED: Final = LogEvent("mageflow.telemetry.label_folded", "warning", ("label",))

EVENTS: Final[tuple[LogEvent, ...]] = tuple(each for each in list(globals().values()) if isinstance(each, LogEvent))
"""Every log event, in the order of this file."""
