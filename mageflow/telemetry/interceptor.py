"""`Telemetry`, everything one client records, and the interceptor that records it.

`TelemetryInterceptor` uses the public hooks alone: an interceptor of a program can do what it does.
"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, Final

from opentelemetry.trace import TracerProvider
from prometheus_client import CollectorRegistry

from mageflow.config import Settings
from mageflow.interceptors import (
    Attempt,
    CallbackSend,
    ClientCreated,
    ClockReading,
    ClusterView,
    DamageFound,
    Deadlock,
    DeadlockCheck,
    EarlierAttempts,
    Enqueue,
    Event,
    FlowFinish,
    FlowStart,
    FlowStep,
    Interceptor,
    InterceptorFailed,
    LeaseLost,
    LeaseRenewal,
    LockAcquire,
    LockDeclared,
    LockExpired,
    LockHold,
    LockWaiting,
    OutcomeConfirmed,
    PendingSettlements,
    QueueView,
    RedisCall,
    RedisOutage,
    RunResend,
    RunUnserved,
    SignatureLoad,
    SignatureWrite,
    Stagger,
    SwarmFill,
    SwarmLeftOpen,
    TaskDeclared,
    TimeoutExtension,
    WorkerDraining,
    WorkerInfo,
    Wrap,
)
from mageflow.telemetry.attempts import AttemptScope, ExecuteScope
from mageflow.telemetry.clock import ClockSkew
from mageflow.telemetry.enqueues import EnqueueScope, warn_unserved
from mageflow.telemetry.flows import (
    FillScope,
    StartFlowScope,
    finish_flow,
    resend_run,
    send_callback,
    step_flow,
    warn_left_open,
)
from mageflow.telemetry.gauges import ClusterGauges
from mageflow.telemetry.locks import AcquireScope, HoldScope, LockTelemetry
from mageflow.telemetry.names import events, traces
from mageflow.telemetry.operations import ExtensionScope, LoadScope, RedisScope, StaggerScope, WriteScope, damage_found
from mageflow.telemetry.outages import SettlementGauge, record_outage
from mageflow.telemetry.recorder import Recorder
from mageflow.telemetry.serving import ASGIApp, MetricsPort, asgi_app
from mageflow.telemetry.spans import Attributes, Spans
from mageflow.telemetry.worker import WorkerTelemetry, report_draining

__all__ = ["Telemetry", "TelemetryInterceptor"]


_NOTHING: Final[Wrap] = nullcontext()


class TelemetryInterceptor(Interceptor):
    """Records spans, metrics and log events of one client. No method raises."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._locks = LockTelemetry(recorder)
        self._cluster: ClusterGauges | None = None
        self._handlers: Mapping[type[Event], Callable[[Any], None]] = {
            ClientCreated: self._client_created,
            TaskDeclared: lambda event: recorder.declare(event.task),
            LockDeclared: lambda event: self._locks.declare(event.name),
            OutcomeConfirmed: self._outcome_confirmed,
            EarlierAttempts: self._earlier_attempts,
            FlowStep: lambda event: step_flow(recorder, event),
            FlowFinish: lambda event: finish_flow(recorder, event),
            CallbackSend: lambda event: send_callback(recorder, event),
            RunResend: lambda event: resend_run(recorder, event),
            DamageFound: lambda event: damage_found(recorder, event),
            ClockReading: ClockSkew(recorder).update,
            ClusterView: self._cluster_viewed,
            RunUnserved: lambda event: warn_unserved(recorder, event),
            SwarmLeftOpen: lambda event: warn_left_open(recorder, event),
            QueueView: self._queue_viewed,
            RedisOutage: lambda event: record_outage(recorder, event),
            PendingSettlements: SettlementGauge(recorder).update,
            LockWaiting: self._locks.waiting,
            LeaseLost: self._locks.lost,
            LeaseRenewal: self._locks.renewed,
            DeadlockCheck: self._locks.checked,
            Deadlock: self._locks.resolved,
            LockExpired: self._locks.expired,
            WorkerDraining: lambda event: report_draining(recorder, event),
            InterceptorFailed: lambda _: recorder.count_error("interceptor"),
        }

    def attempt(self, call: Attempt) -> AttemptScope:
        """A ``process`` span, the attempt's metrics, its log events, and context for everything inside."""
        return AttemptScope(self._recorder, call)

    def execute(self, call: Attempt) -> Wrap:
        """An ``execute`` span where the attempt has others beside it."""
        live = self._recorder.live.find(call)
        return _NOTHING if live is None or not live.has_stages else ExecuteScope(self._recorder, live)

    def enqueue(self, call: Enqueue) -> EnqueueScope:
        """A ``send`` span, trace context in the metadata, and metrics."""
        return EnqueueScope(self._recorder, call)

    def stagger(self, call: Stagger) -> StaggerScope:
        """A ``stagger`` span and metrics."""
        return StaggerScope(self._recorder, call)

    def extend_timeout(self, call: TimeoutExtension) -> ExtensionScope:
        """A span event, metrics and a log event."""
        return ExtensionScope(self._recorder, call)

    def load_signature(self, call: SignatureLoad) -> LoadScope:
        """A ``load signature`` span and metrics; a log event where the signature cannot be used."""
        return LoadScope(self._recorder, call)

    def write_signature(self, call: SignatureWrite) -> WriteScope:
        """Metrics."""
        return WriteScope(self._recorder, call)

    def redis(self, call: RedisCall) -> RedisScope:
        """A metric and a log event where the round trip fails."""
        return RedisScope(self._recorder, call)

    def start_flow(self, call: FlowStart) -> StartFlowScope:
        """A ``start`` span, the parent of every run of the flow, and metrics."""
        return StartFlowScope(self._recorder, call)

    def fill_swarm(self, call: SwarmFill) -> FillScope:
        """A ``fill`` span."""
        return FillScope(self._recorder, call)

    def acquire_lock(self, call: LockAcquire) -> AcquireScope:
        """An ``acquire`` span, metrics, and gauges while the request waits."""
        return AcquireScope(self._locks, call)

    def hold_lock(self, call: LockHold) -> HoldScope:
        """A metric, and gauges while the lock is held."""
        return HoldScope(self._locks, call)

    def worker(self, call: WorkerInfo) -> WorkerTelemetry:
        """The metrics endpoint, the sampler of the event loop, and the worker's gauges and log events."""
        return WorkerTelemetry(self._recorder, call, zero_locks=self._locks.zero_declared)

    def event(self, event: Event) -> None:
        """Metrics, spans and log events; which ones is up to the type of the event."""
        handle = self._handlers.get(type(event))
        if handle is not None:
            handle(event)

    def _client_created(self, event: ClientCreated) -> None:
        server: Attributes = {traces.SERVER_ADDRESS: event.server_address}
        if event.server_port is not None:
            server[traces.SERVER_PORT] = event.server_port
        recorder = self._recorder
        recorder.spans.server = server
        recorder.namespace = event.namespace
        recorder.log.hide_from_log_forwarder = event.hide_from_log_forwarder

    def _outcome_confirmed(self, event: OutcomeConfirmed) -> None:
        if (scope := self._recorder.unconfirmed.pop(event.attempt, None)) is not None:
            scope.confirm()

    def _earlier_attempts(self, event: EarlierAttempts) -> None:
        scope = self._recorder.arrivals.pop(event.attempt, None)
        if scope is not None and not event.have_begun:
            scope.observe_late_wait()

    def _cluster_viewed(self, event: ClusterView) -> None:
        if self._cluster is None:
            self._cluster = ClusterGauges()
            self._recorder.add_gauges(self._cluster)
        if self._cluster.update(event):
            self._recorder.log.emit(events.CLUSTER_LEADER_CHANGED, state="acquired" if event.is_leader else "lost")

    def _queue_viewed(self, event: QueueView) -> None:
        if self._cluster is not None:
            self._cluster.update_queue(event)


class Telemetry:
    """Everything one client records. Makes no metric, thread or socket before something is recorded.

    Args:
        settings: What is recorded, where, and in how much detail.
        registry: Where metrics are registered and what the endpoint serves; ``prometheus_client.REGISTRY`` unless
            given, so that the program's own metrics are served too.
        tracer_provider: Where spans go; OpenTelemetry's global provider unless given.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        registry: CollectorRegistry | None = None,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        spans = Spans(tracer_provider, exception_detail=settings.exception_detail)
        self.recorder = Recorder(settings, registry=registry, spans=spans)
        """What all scopes of this client record with."""
        self.interceptor = TelemetryInterceptor(self.recorder)

    @property
    def log(self) -> Any:
        """A structlog logger over the standard library's ``mageflow``, for records of the program's own."""
        return self.recorder.log.logger

    def logs_attempts(self) -> bool:
        """Whether the event at the end of an attempt is written now: its logger lets it pass, and has a handler."""
        return self.recorder.log.logs_attempts()

    def asgi_app(self) -> ASGIApp:
        """An ASGI application with the metrics of this client, for a web application that sends work.

        Mount it: ``app.mount("/metrics", client.telemetry.asgi_app())``. It renders in a thread, and OpenMetrics with
        exemplars for a scraper that accepts it. Every path below the mount gets the same answer.
        """
        return asgi_app(self.recorder)

    def serve(self, name: str = "sender") -> MetricsPort:
        """Serve the metrics of this client at a port, for a program that sends work and has no worker.

        Address and ports are those of `Settings.metrics_addr`, `Settings.metrics_port` and
        `Settings.metrics_port_span`; with `Settings.metrics_sd_dir` Prometheus finds it. The daemon threads end with
        the program, or with ``stop()`` of the result.

        Args:
            name: Of this program, in the entry for service discovery.

        Returns:
            The port; its ``url`` is empty if metrics are off or no port was free, which is logged.
        """
        port = MetricsPort(self.recorder, name)
        if self.recorder.settings.metrics:
            with self.recorder.guards.metric.catching("serve"):
                self.recorder.zero_enqueues()
            port.start()
        return port
