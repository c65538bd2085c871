"""`Telemetry`, the one object everything hangs on, and the interceptor it offers.

Built for a client, in a producer or in a worker. Making it costs nothing and creates nothing: no metric, thread or
socket before something is recorded or a worker starts.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import TracerProvider
from prometheus_client import CollectorRegistry

from mageflow.config import Settings
from mageflow.interceptors import (
    Attempt,
    CallbackSend,
    ClusterView,
    Deadlock,
    DeadlockCheck,
    Enqueue,
    FlowFinish,
    FlowStart,
    FlowStep,
    Interceptor,
    LeaseLost,
    LeaseRenewal,
    LockAcquire,
    LockExpired,
    LockHold,
    LockWaiting,
    RedisCall,
    RunResend,
    SignatureLoad,
    SignatureWrite,
    Stagger,
    SwarmFill,
    TaskInfo,
    TimeoutExtension,
)
from mageflow.telemetry.attempts import AttemptScope
from mageflow.telemetry.bodies import ExecuteScope, ThreadScope
from mageflow.telemetry.cluster import ClusterGauges
from mageflow.telemetry.enqueues import EnqueueScope
from mageflow.telemetry.flows import FillScope, StartFlowScope, finish_flow, resend_run, send_callback, step_flow
from mageflow.telemetry.locks import AcquireScope, HoldScope, LockTelemetry
from mageflow.telemetry.names import events, traces
from mageflow.telemetry.operations import ExtensionScope, LoadScope, RedisScope, StaggerScope, WriteScope
from mageflow.telemetry.propagation import traceparent_of
from mageflow.telemetry.recorder import Recorder
from mageflow.telemetry.spans import Attributes, Spans
from mageflow.telemetry.worker import WorkerTelemetry

__all__ = ["Telemetry", "TelemetryInterceptor"]


class TelemetryInterceptor(Interceptor):
    """Spans, metrics and log events of tasks, enqueues, timeouts, signatures, flows, locks and Redis. Never raises."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._cluster: ClusterGauges | None = None
        self.locks = LockTelemetry(recorder)

    def attempt(self, call: Attempt) -> AbstractContextManager[None]:
        """See `Interceptor.attempt`."""
        return AttemptScope(self._recorder, call)

    def execute(self, call: Attempt) -> AbstractContextManager[None]:
        """See `Interceptor.execute`."""
        return ExecuteScope(self._recorder, call)

    def enqueue(self, call: Enqueue) -> AbstractContextManager[None]:
        """See `Interceptor.enqueue`."""
        return EnqueueScope(self._recorder, call)

    def stagger(self, call: Stagger) -> AbstractContextManager[None]:
        """See `Interceptor.stagger`."""
        return StaggerScope(self._recorder, call)

    def extend_timeout(self, call: TimeoutExtension) -> AbstractContextManager[None]:
        """See `Interceptor.extend_timeout`."""
        return ExtensionScope(self._recorder, call)

    def load_signature(self, call: SignatureLoad) -> AbstractContextManager[None]:
        """See `Interceptor.load_signature`."""
        return LoadScope(self._recorder, call)

    def write_signature(self, call: SignatureWrite) -> AbstractContextManager[None]:
        """See `Interceptor.write_signature`."""
        return WriteScope(self._recorder, call)

    def redis(self, call: RedisCall) -> AbstractContextManager[None]:
        """See `Interceptor.redis`."""
        return RedisScope(self._recorder, call)

    def start_flow(self, call: FlowStart) -> AbstractContextManager[None]:
        """See `Interceptor.start_flow`."""
        return StartFlowScope(self._recorder, call)

    def step_flow(self, call: FlowStep) -> AbstractContextManager[None]:
        """See `Interceptor.step_flow`."""
        step_flow(self._recorder, call)
        return nullcontext()

    def finish_flow(self, call: FlowFinish) -> AbstractContextManager[None]:
        """See `Interceptor.finish_flow`."""
        finish_flow(self._recorder, call)
        return nullcontext()

    def fill_swarm(self, call: SwarmFill) -> AbstractContextManager[None]:
        """See `Interceptor.fill_swarm`."""
        return FillScope(self._recorder, call)

    def send_callback(self, call: CallbackSend) -> AbstractContextManager[None]:
        """See `Interceptor.send_callback`."""
        send_callback(self._recorder, call)
        return nullcontext()

    def resend_run(self, call: RunResend) -> AbstractContextManager[None]:
        """See `Interceptor.resend_run`."""
        resend_run(self._recorder, call)
        return nullcontext()

    def view_cluster(self, call: ClusterView) -> AbstractContextManager[None]:
        """See `Interceptor.view_cluster`."""
        if self._cluster is None:
            self._cluster = ClusterGauges()
            self._recorder.add_gauges(self._cluster)
        if self._cluster.show(call):
            self._recorder.log.emit(events.CLUSTER_LEADER_CHANGED, state="acquired" if call.is_leader else "lost")
        return nullcontext()

    def acquire_lock(self, call: LockAcquire) -> AbstractContextManager[None]:
        """See `Interceptor.acquire_lock`."""
        return AcquireScope(self.locks, call)

    def wait_for_lock(self, call: LockWaiting) -> AbstractContextManager[None]:
        """See `Interceptor.wait_for_lock`."""
        self.locks.waiting(call)
        return nullcontext()

    def hold_lock(self, call: LockHold) -> AbstractContextManager[None]:
        """See `Interceptor.hold_lock`."""
        return HoldScope(self.locks, call)

    def lose_lease(self, call: LeaseLost) -> AbstractContextManager[None]:
        """See `Interceptor.lose_lease`."""
        self.locks.lost(call)
        return nullcontext()

    def renew_lease(self, call: LeaseRenewal) -> AbstractContextManager[None]:
        """See `Interceptor.renew_lease`."""
        self.locks.renewed(call)
        return nullcontext()

    def check_deadlock(self, call: DeadlockCheck) -> AbstractContextManager[None]:
        """See `Interceptor.check_deadlock`."""
        self.locks.checked(call)
        return nullcontext()

    def resolve_deadlock(self, call: Deadlock) -> AbstractContextManager[None]:
        """See `Interceptor.resolve_deadlock`."""
        self.locks.resolved(call)
        return nullcontext()

    def expire_lock(self, call: LockExpired) -> AbstractContextManager[None]:
        """See `Interceptor.expire_lock`."""
        self.locks.expired(call)
        return nullcontext()


class Telemetry:
    """All telemetry of one client.

    Args:
        settings: What may be told, where, and how much of it.
        registry: Where metrics are registered and what the endpoint serves; ``prometheus_client.REGISTRY`` unless
            given, so that the program's own metrics ride along.
        tracer_provider: Where spans go; OpenTelemetry's global provider unless given.
        namespace: Hatchet's, taken off task names before they become labels.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        registry: CollectorRegistry | None = None,
        tracer_provider: TracerProvider | None = None,
        namespace: str = "",
    ) -> None:
        spans = Spans(tracer_provider, exception_detail=settings.exception_detail)
        self.recorder = Recorder(settings, registry=registry, spans=spans, namespace=namespace)
        """What scopes of other rooms record with."""
        interceptor = TelemetryInterceptor(self.recorder)
        self.interceptor: Interceptor = interceptor
        self._locks = interceptor.locks
        self.lock_view: Callable[[], object] = _no_locks
        """What ``/debug/locks`` shows, as something JSON can say. Called in the thread that serves the request."""

    @property
    def log(self) -> Any:
        """A structlog logger over the standard library's ``mageflow``, for free-form records."""
        return self.recorder.log.logger

    def declare_task(self, info: TaskInfo) -> None:
        """Accept a task's name in every signal. Creates no series: those come with its first run or a worker."""
        self.recorder.declare(info)

    def declare_lock(self, name: str) -> None:
        """Accept a resource's name in every signal. Creates no series: those come with its first request."""
        self._locks.declare(name)

    def current_traceparent(self) -> str:
        """The current span as W3C text, for somebody else to link to; empty when there is none. Never raises."""
        with self.recorder.guard.traces.at("current_traceparent"):
            return traceparent_of(trace.get_current_span().get_span_context())
        return ""

    def connected_to(self, address: str, port: int | None = None) -> None:
        """Put ``server.address`` and ``server.port`` of Hatchet on every span."""
        server: Attributes = {traces.SERVER_ADDRESS: address}
        if port is not None:
            server[traces.SERVER_PORT] = port
        self.recorder.spans.server = server

    def keep_from_hatchet(self, unforwarded: Callable[[], AbstractContextManager[object]]) -> None:
        """Enter ``unforwarded()`` around log events below ``hatchet_log_level``, hidden from Hatchet's forwarder."""
        self.recorder.log.unforwarded = unforwarded

    def in_thread(self, attempt: Attempt) -> AbstractContextManager[None]:
        """Enter in the thread of a synchronous body: brings structlog's and OpenTelemetry's contexts in.

        Takes them out again on exit and leaves the pooled thread without any. Does nothing once the attempt is over.
        """
        return ThreadScope(self.recorder, attempt)

    def worker(self, *, name: str, slots: Mapping[str, int], tasks: Sequence[TaskInfo]) -> WorkerTelemetry:
        """Telemetry of one worker: an async context manager for its lifespan, entered on the loop that runs tasks.

        Args:
            name: The worker's; appears in ``mageflow_worker_info`` and nowhere else in metrics.
            slots: By pool, ``default`` and ``durable``.
            tasks: What the worker serves.
        """
        view = lambda: self.lock_view()  # noqa: E731, PLW0108 - the locks may come after the worker
        return WorkerTelemetry(
            self.recorder,
            name=name,
            slots=slots,
            tasks=tasks,
            lock_view=view,
            zero_locks=self._locks.zero_declared,
        )


def _no_locks() -> object:
    return {"holders": [], "waiters": [], "cycles": []}
