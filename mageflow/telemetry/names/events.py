"""Every log event: its name, its usual level, its fields, and when it is written.

`CONTEXT_FIELDS` are on every record inside an attempt, and `TRACE_FIELDS` on every record inside a span; they are not
repeated in `LogEvent.fields`.
"""

from dataclasses import dataclass
from typing import Final, Literal

LOGGER: Final = "mageflow"
"""The standard library's logger that all events go through."""

CONTEXT_FIELDS: Final = (
    "task", "run_id", "step_run_id", "attempt", "worker", "flow", "flow_id", "signature_id",
)  # fmt: skip
"""Bound while an attempt runs. ``flow``, ``flow_id`` and ``signature_id`` only for runs of flows and signatures."""

TRACE_FIELDS: Final = ("trace_id", "span_id", "trace_sampled")
"""Added by ``add_trace_context``: 32 and 16 hex digits, and a boolean."""

Level = Literal["debug", "info", "warning", "error", "critical"]


@dataclass(frozen=True, slots=True, eq=False)
class LogEvent:
    """One log event."""

    name: str
    level: Level
    help: str
    fields: tuple[str, ...] = ()


WORKER_STARTED: Final = LogEvent(
    "mageflow.worker.started", "info", "A worker is ready for tasks.",
    ("version", "tasks", "slots", "metrics_url", "hatchet_instrumentor"),
)  # fmt: skip
WORKER_DRAINING: Final = LogEvent(
    "mageflow.worker.draining", "info",
    "A worker was asked to stop and waits for these attempts, by task and phase.", ("in_flight", "tasks"),
)  # fmt: skip
WORKER_STOPPING: Final = LogEvent(
    "mageflow.worker.stopping", "info", "The last task of a stopping worker has ended.", ("in_flight",)
)
METRICS_LISTENING: Final = LogEvent(
    "mageflow.metrics.listening", "info", "The metrics endpoint is bound.", ("addr", "port")
)
METRICS_BIND_FAILED: Final = LogEvent(
    "mageflow.metrics.bind_failed", "error", "No port was free; the worker runs without an endpoint.",
    ("addr", "ports_tried", "error_type"),
)  # fmt: skip
METRICS_MULTIPROC_ENV: Final = LogEvent(
    "mageflow.metrics.multiproc_env", "warning", "PROMETHEUS_MULTIPROC_DIR is set, so exemplars are lost.",
    ("directory",),
)  # fmt: skip
PRIVACY_PAYLOAD_EXPORTED: Final = LogEvent(
    "mageflow.privacy.hatchet_payload_exported", "warning",
    "The SDK's instrumentor exports inputs and keys of runs with its spans. Once per client.", ("not_excluded",),
)  # fmt: skip

TASK_ENQUEUED: Final = LogEvent(
    "mageflow.task.enqueued", "debug", "Runs were handed to Hatchet.", ("target", "source", "batch")
)
TASK_ENQUEUE_FAILED: Final = LogEvent(
    "mageflow.task.enqueue_failed", "error", "Runs could not be handed to Hatchet.",
    ("target", "source", "batch", "error_type"),
)  # fmt: skip
TASK_UNSERVED: Final = LogEvent(
    "mageflow.task.unserved", "warning",
    "A run that was sent some seconds ago has not started and will not by itself. Once per task and client.",
    ("target", "reason", "advice", "waiting_run_id"),
)  # fmt: skip
TASK_STARTED: Final = LogEvent(
    "mageflow.task.started", "debug", "An attempt has arrived on the worker.", ("queue_wait_s",)
)
TASK_FINISHED: Final = LogEvent(
    "mageflow.task.finished", "info", "An attempt succeeded.", ("outcome", "duration_s", "queue_wait_s")
)  # fmt: skip
TASK_FAILED: Final = LogEvent(
    "mageflow.task.failed", "error", "An attempt failed. A warning if Hatchet will retry it.",
    ("exception", "raised_at", "duration_s", "queue_wait_s", "will_retry"),
)  # fmt: skip
TASK_TIMED_OUT: Final = LogEvent(
    "mageflow.task.timed_out", "error", "An attempt exceeded its execution timeout.",
    ("timeout_s", "extended_s", "elapsed_s", "queue_wait_s", "phase", "will_retry"),
)  # fmt: skip
TASK_CANCELLED: Final = LogEvent(
    "mageflow.task.cancelled", "info", "An attempt was cancelled.", ("phase", "duration_s", "queue_wait_s")
)  # fmt: skip
TASK_SKIPPED: Final = LogEvent(
    "mageflow.task.skipped", "info", "The signature did not admit the run; its function did not run.",
    ("signature_status",),
)  # fmt: skip
TASK_NEAR_TIMEOUT: Final = LogEvent(
    "mageflow.task.near_timeout", "warning", "A running attempt has used most of its timeout. Once per attempt.",
    ("used_ratio", "remaining_s"),
)  # fmt: skip
TASK_THREAD_ORPHANED: Final = LogEvent(
    "mageflow.task.thread_orphaned", "warning", "An attempt ended while its synchronous function still runs.",
    ("elapsed_s",),
)  # fmt: skip

STAGGER_STARTED: Final = LogEvent(
    "mageflow.stagger.started", "info", "A stagger delay was drawn.", ("delay_s", "window_s")
)
STAGGER_CANCELLED: Final = LogEvent(
    "mageflow.stagger.cancelled", "info", "The run was cancelled during its stagger delay.", ("slept_s",)
)
TIMEOUT_EXTENDED: Final = LogEvent(
    "mageflow.timeout.extended", "debug", "Hatchet granted more execution time.", ("reason", "by_s", "deadline")
)
TIMEOUT_EXTENSION_FAILED: Final = LogEvent(
    "mageflow.timeout.extension_failed", "error", "Hatchet did not grant more execution time.",
    ("reason", "by_s", "error_type"),
)  # fmt: skip

SIGNATURE_MISSING: Final = LogEvent(
    "mageflow.signature.missing", "error", "A signature has expired, was removed, or never existed.",
    ("kind", "signature_id"),
)  # fmt: skip
SIGNATURE_END_DROPPED: Final = LogEvent(
    "mageflow.signature.end_dropped", "warning",
    "A run has ended whose signature or flow has expired, was removed or was lost by Redis: nothing follows from it.",
    ("kind", "signature_id"),
)  # fmt: skip
SIGNATURE_INVALID: Final = LogEvent(
    "mageflow.signature.invalid", "error", "A stored signature does not validate.",
    ("kind", "signature_id", "error_type"),
)  # fmt: skip
SIGNATURE_FOREIGN: Final = LogEvent(
    "mageflow.signature.foreign", "warning",
    "The metadata of a run is of another run, task or client: a plain run.", ("kind", "signature_id"),
)  # fmt: skip
STORE_DAMAGED: Final = LogEvent(
    "mageflow.store.damaged", "warning", "Something in Redis cannot be read and was put aside. Once, until cleared.",
    ("kind", "key", "reason"),
)  # fmt: skip
REDIS_ERROR: Final = LogEvent(
    "mageflow.redis.error", "warning",
    "A round trip to Redis failed. At level debug in an outage, which has its own events.", ("operation", "error_type"),
)  # fmt: skip
REDIS_OUTAGE: Final = LogEvent(
    "mageflow.redis.outage", "warning", "Redis went away or began to refuse. Once per outage.",
    ("reason", "operation", "advice"),
)  # fmt: skip
REDIS_RECOVERED: Final = LogEvent(
    "mageflow.redis.recovered", "warning", "Redis accepts again what it refused. Once per outage.",
    ("reason", "operation", "duration_s", "failures"),
)  # fmt: skip

FLOW_STARTED: Final = LogEvent("mageflow.flow.started", "info", "A chain or swarm was started.", ("name", "steps"))
FLOW_STEP_DONE: Final = LogEvent(
    "mageflow.flow.step_done", "debug", "The step before is done: a step or an item was admitted.",
    ("step", "handover_s"),
)  # fmt: skip
FLOW_FINISHED: Final = LogEvent(
    "mageflow.flow.finished", "info", "A chain or swarm ended. Once, by the process that ended it.",
    ("outcome", "duration_s", "steps"),
)  # fmt: skip
SWARM_LEFT_OPEN: Final = LogEvent(
    "mageflow.swarm.left_open", "warning",
    "A caller waits for a swarm that has nothing left to run and is not closed. Once per wait.",
    ("target", "swarm_id", "items", "advice"),
)  # fmt: skip
CALLBACK_FAILED: Final = LogEvent(
    "mageflow.callback.failed", "error", "A callback could not be sent, or failed for good.",
    ("kind", "target", "error_type"),
)  # fmt: skip
FLOW_RUN_RESENT: Final = LogEvent(
    "mageflow.flow.run_resent", "warning", "Hatchet lost a run, or found no worker for it: it is sent again.",
    ("reason", "target", "lost_run_id", "times"),
)  # fmt: skip

LOCK_WAITING: Final = LogEvent(
    "mageflow.lock.waiting", "info", "A request has waited for one second. Once per request.",
    ("lock", "resource", "holders"),
)  # fmt: skip
LOCK_ACQUIRED: Final = LogEvent(
    "mageflow.lock.acquired", "debug", "A lock was granted.", ("lock", "resource", "waited_s")
)  # fmt: skip
LOCK_RELEASED: Final = LogEvent(
    "mageflow.lock.released", "debug", "A lock was released.", ("lock", "resource", "held_s")
)  # fmt: skip
LOCK_TIMEOUT: Final = LogEvent(
    "mageflow.lock.timeout", "warning", "A request gave up after its timeout.",
    ("lock", "resource", "waited_s", "holders"),
)  # fmt: skip
LOCK_LEASE_LOST: Final = LogEvent(
    "mageflow.lock.lease_lost", "critical", "A lease ended while its lock was held: the work is no longer exclusive.",
    ("lock", "held_s", "loop_blocked_s"),
)  # fmt: skip
LOCK_ORPHAN_REAPED: Final = LogEvent(
    "mageflow.lock.orphan_reaped", "warning", "A lock was taken from an owner whose lease had run out.",
    ("lock", "owner"),
)  # fmt: skip

DEADLOCK_DETECTED: Final = LogEvent(
    "mageflow.deadlock.detected", "error", "A request closed a cycle of waiting.",
    ("cycle", "victim", "policy", "deadlock_trace_id"),
)  # fmt: skip
DEADLOCK_RESOLVED: Final = LogEvent(
    "mageflow.deadlock.resolved", "info", "The cycle was broken: its victim gave up.", ("resolution", "took_s")
)
DEADLOCK_CHECK_FAILED: Final = LogEvent(
    "mageflow.deadlock.check_failed", "warning", "The script that searches for cycles did not answer.",
    ("error_type",),
)  # fmt: skip

CLUSTER_LEADER_CHANGED: Final = LogEvent(
    "mageflow.cluster.leader", "info", "This process began or ceased to export the cluster-wide gauges.", ("state",)
)
CLOCK_SKEWED: Final = LogEvent(
    "mageflow.clock.skewed", "warning",
    "The clocks of this host and of Redis differ by over a second. Once, until they agree again.",
    ("skew_s", "error_s", "advice"),
)  # fmt: skip
TELEMETRY_ERROR: Final = LogEvent(
    "mageflow.telemetry.error", "warning", "Telemetry failed. At most once a minute per site.",
    ("signal", "site", "error_type", "suppressed"),
)  # fmt: skip
TELEMETRY_LABEL_FOLDED: Final = LogEvent(
    "mageflow.telemetry.label_folded", "warning", "A label value was folded to __other__. Once per label.", ("label",)
)

EVENTS: Final[tuple[LogEvent, ...]] = tuple(each for each in list(globals().values()) if isinstance(each, LogEvent))
"""Every log event, in the order of this file."""
