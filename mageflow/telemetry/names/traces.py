"""Every span, span attribute and span event.

Names that OpenTelemetry or Hatchet already have are used as they are: messaging semantic conventions 1.44.0, and the
``hatchet.*`` ids of the SDK's own instrumentor.
"""

from dataclasses import dataclass
from typing import Final, Literal

SCOPE: Final = "mageflow"
SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"


@dataclass(frozen=True, slots=True, eq=False)
class SpanName:
    """One kind of span. ``template`` may end in one field, which is filled with a declared name."""

    template: str
    kind: Literal["producer", "client", "consumer", "internal"]
    help: str

    def __call__(self, subject: str = "") -> str:
        """The name of a span, with its field filled."""
        start = self.template.find("{")
        return self.template if start < 0 else self.template[:start] + subject


SPAN_SEND: Final = SpanName("send {task}", "producer", "One call that hands runs to Hatchet; their parent.")
SPAN_SEND_ALL: Final = SpanName("send {task}", "client", "One call with several runs, each with its `create`.")
SPAN_CREATE: Final = SpanName("create {task}", "producer", "One item of a bulk call.")
SPAN_PROCESS: Final = SpanName("process {task}", "consumer", "One attempt.")
SPAN_LOAD_SIGNATURE: Final = SpanName("load signature", "internal", "Reading the signature of a run.")
SPAN_STAGGER: Final = SpanName("stagger {task}", "internal", "Extension and sleep of a staggered attempt.")
SPAN_EXECUTE: Final = SpanName("execute {task}", "internal", "The body of an attempt that also staggered or loaded.")
SPAN_ACQUIRE: Final = SpanName("acquire {lock}", "internal", "One lock request, linked to the current holders.")
SPAN_RESOLVE_DEADLOCK: Final = SpanName("resolve deadlock", "internal", "Breaking a cycle, linked to its members.")
SPAN_START_FLOW: Final = SpanName("start {flow_name}", "producer", "Start of a chain or swarm; the flow's root.")
SPAN_FLOW: Final = SpanName("{flow_name}", "internal", "A whole flow, written at its close and back-dated.")
SPAN_FILL_SWARM: Final = SpanName("fill {flow_name}", "internal", "A swarm refill that starts items.")

SPANS: Final[tuple[SpanName, ...]] = tuple(each for each in list(globals().values()) if isinstance(each, SpanName))

# Attributes that others named.
MESSAGING_SYSTEM: Final = "messaging.system"
MESSAGING_OPERATION_NAME: Final = "messaging.operation.name"
MESSAGING_OPERATION_TYPE: Final = "messaging.operation.type"
MESSAGING_DESTINATION_NAME: Final = "messaging.destination.name"
MESSAGING_MESSAGE_ID: Final = "messaging.message.id"
MESSAGING_CONVERSATION_ID: Final = "messaging.message.conversation_id"
MESSAGING_CLIENT_ID: Final = "messaging.client.id"
MESSAGING_BATCH_COUNT: Final = "messaging.batch.message_count"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
ERROR_TYPE: Final = "error.type"
EXCEPTION_TYPE: Final = "exception.type"
EXCEPTION_MESSAGE: Final = "exception.message"
EXCEPTION_STACKTRACE: Final = "exception.stacktrace"
CODE_FUNCTION_NAME: Final = "code.function.name"
HATCHET_WORKFLOW_RUN_ID: Final = "hatchet.workflow_run_id"
HATCHET_STEP_RUN_ID: Final = "hatchet.step_run_id"
HATCHET_WORKER_ID: Final = "hatchet.worker_id"
HATCHET_NAMESPACE: Final = "hatchet.namespace"
"""An attribute of the resource, not of a span."""
HATCHET_PAYLOAD: Final = "hatchet.payload"
"""An empty string on every span of mageflow. ``docs/telemetry.md`` says why (*Beside Hatchet's instrumentor*)."""
HATCHET_SYSTEM: Final = "hatchet"
"""Value of `MESSAGING_SYSTEM`."""

# Attributes of ours.
TASK_ATTEMPT: Final = "mageflow.task.attempt"
TASK_MAX_ATTEMPTS: Final = "mageflow.task.max_attempts"
TASK_OUTCOME: Final = "mageflow.task.outcome"
TASK_WILL_RETRY: Final = "mageflow.task.will_retry"
TASK_TIMEOUT_S: Final = "mageflow.task.timeout_s"
TASK_TIMEOUT_EXTENDED_S: Final = "mageflow.task.timeout_extended_s"
QUEUE_WAIT_S: Final = "mageflow.queue.wait_s"
ENQUEUE_SOURCE: Final = "mageflow.enqueue.source"
SIGNATURE_ID: Final = "mageflow.signature.id"
SIGNATURE_KIND: Final = "mageflow.signature.kind"
SIGNATURE_RESULT: Final = "mageflow.signature.result"
SIGNATURE_BYTES: Final = "mageflow.signature.bytes"
SIGNATURE_STATUS: Final = "mageflow.signature.status"
STAGGER_DELAY_S: Final = "mageflow.stagger.delay_s"
STAGGER_WINDOW_S: Final = "mageflow.stagger.window_s"
STAGGER_SLEPT_S: Final = "mageflow.stagger.slept_s"
FLOW_KIND: Final = "mageflow.flow.kind"
FLOW_ID: Final = "mageflow.flow.id"
FLOW_NAME: Final = "mageflow.flow.name"
FLOW_STEP: Final = "mageflow.flow.step"
FLOW_STEP_COUNT: Final = "mageflow.flow.steps"
FLOW_OUTCOME: Final = "mageflow.flow.outcome"
FLOW_CRITICAL_TASK: Final = "mageflow.flow.critical_task"
SWARM_RUNNING: Final = "mageflow.swarm.running"
SWARM_PENDING: Final = "mageflow.swarm.pending"
LOCK_NAME: Final = "mageflow.lock.name"
LOCK_MODE: Final = "mageflow.lock.mode"
LOCK_OUTCOME: Final = "mageflow.lock.outcome"
LOCK_WAITED_S: Final = "mageflow.lock.waited_s"
LOCK_QUEUE_POSITION: Final = "mageflow.lock.queue_position"
LOCK_RESOURCE: Final = "mageflow.lock.resource"
"""Hashed, unless `Settings.lock_resource_detail` is ``raw``."""
DEADLOCK_CYCLE_LENGTH: Final = "mageflow.deadlock.cycle_length"
DEADLOCK_VICTIM_TASK: Final = "mageflow.deadlock.victim_task"
DEADLOCK_RESOLUTION: Final = "mageflow.deadlock.resolution"
DEADLOCK_MEMBERS: Final = "mageflow.deadlock.members"
DEADLOCK_CYCLE: Final = "mageflow.deadlock.cycle"
DEADLOCK_WAITS_FOR: Final = "mageflow.deadlock.waits_for"
TIMEOUT_REASON: Final = "mageflow.timeout.reason"
TIMEOUT_REQUESTED_S: Final = "mageflow.timeout.requested_s"
TIMEOUT_RESULT: Final = "mageflow.timeout.result"
TIMEOUT_DEADLINE: Final = "mageflow.timeout.deadline"
TRACE_PARENTED_BY: Final = "mageflow.trace.parented_by"
"""``hatchet`` if the SDK's instrumentor has chosen another parent than mageflow would."""
TRACE_ORIGIN: Final = "mageflow.trace.origin"
"""``external`` if the parent was written by the SDK's instrumentor, an ancestor or the engine."""

# Span events.
EVENT_EXCEPTION: Final = "exception"
EVENT_TIMEOUT_EXTENDED: Final = "mageflow.timeout.extended"
EVENT_LOCK_QUEUED: Final = "mageflow.lock.queued"
EVENT_LOCK_GRANTED: Final = "mageflow.lock.granted"
EVENT_LOCK_LEASE_LOST: Final = "mageflow.lock.lease_lost"
EVENT_DEADLOCK_VICTIM: Final = "mageflow.deadlock.victim"
EVENT_DEADLOCK_EDGE: Final = "mageflow.deadlock.edge"

ATTRIBUTES: Final[frozenset[str]] = frozenset(
    value
    for name, value in list(globals().items())
    if isinstance(value, str) and "." in value and not name.startswith(("_", "EVENT_", "SCHEMA_"))
)
"""Every span attribute."""

SPAN_EVENTS: Final[frozenset[str]] = frozenset(
    value for name, value in list(globals().items()) if isinstance(value, str) and name.startswith("EVENT_")
)
"""Every span event."""
