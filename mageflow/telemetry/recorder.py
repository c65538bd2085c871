"""`Recorder`: what all telemetry of one client shares."""

from typing import Any, Protocol

from prometheus_client import REGISTRY, CollectorRegistry

from mageflow.config import Settings
from mageflow.interceptors import Attempt, TaskInfo
from mageflow.telemetry.gauges import GaugeSource
from mageflow.telemetry.guards import Guards
from mageflow.telemetry.instrumentor import unexcluded_attributes
from mageflow.telemetry.instruments import Instruments, instruments_for
from mageflow.telemetry.live import LiveAttempts
from mageflow.telemetry.logs import EventLog
from mageflow.telemetry.names import events, metrics
from mageflow.telemetry.process_span import ProcessSpans
from mageflow.telemetry.recent import RecentRuns
from mageflow.telemetry.spans import Spans

__all__ = ["Recorder"]


class Confirmable(Protocol):
    """The record of an attempt whose end is not certain yet."""

    def confirm(self) -> None:
        """Record it with the outcome that the attempt has now."""
        ...


class Arrived(Protocol):
    """The record of an attempt that may be the first of its run to begin."""

    def observe_late_wait(self) -> None:
        """Record its queue wait."""
        ...


class Recorder:
    """Spans, instruments, log, guards and live attempts of one client. Creates no metric before one is recorded."""

    __slots__ = (
        "_has_warned_of_payloads",
        "_instruments",
        "_sources",
        "_zeroed_tasks",
        "allowed_task_labels",
        "arrivals",
        "guards",
        "live",
        "log",
        "namespace",
        "processes",
        "recent",
        "registry",
        "settings",
        "spans",
        "tasks",
        "unconfirmed",
    )

    def __init__(self, settings: Settings, *, registry: CollectorRegistry | None, spans: Spans) -> None:
        self.settings = settings
        self.registry = REGISTRY if registry is None else registry
        self.spans = spans
        self.processes = ProcessSpans(spans)
        self.namespace = ""
        """Prefix that Hatchet knows tasks by; removed before a name becomes a label."""
        self.guards = Guards(self.count_error)
        self.guards.metric.disabled = not settings.metrics
        self.log = EventLog(self.guards.log, settings.hatchet_log_level)
        self.tasks: dict[str, TaskInfo] = {}
        """Declared tasks by name."""
        self.allowed_task_labels: set[str] = set()
        """Values of the ``task`` label: names of declared tasks, and of their workflows, because those are enqueued."""
        self.live = LiveAttempts(settings.near_timeout_ratio)
        self.recent = RecentRuns(settings)
        self.unconfirmed: dict[Attempt, Confirmable] = {}
        """Attempts that have ended, but are counted when Hatchet has answered how."""
        self.arrivals: dict[Attempt, Arrived] = {}
        """Attempts after the first, until Hatchet has answered whether one before them had begun."""
        self._instruments: Instruments | None = None
        self._has_warned_of_payloads = False
        self._sources: list[GaugeSource] = [self.live]
        self._zeroed_tasks = 0

    @property
    def instruments(self) -> Instruments:
        """The instruments of the registry, created on first use."""
        return self._instruments or self._create()

    def _create(self) -> Instruments:
        instruments = instruments_for(self.registry, max_series=self.settings.metrics_max_series)
        for name in self.allowed_task_labels:
            instruments.allow_task(name)
        for source in self._sources:
            instruments.gauges.add(source)
        self._instruments = instruments
        return instruments

    def add_gauges(self, source: GaugeSource) -> None:
        """Export this source's gauges too. Creates no metric; the source is kept as long as this client."""
        self._sources.append(source)
        if self._instruments is not None:
            self._instruments.gauges.add(source)

    def run_report(self) -> dict[str, Any]:
        """The body of ``/debug/runs``. May be called from any thread."""
        return self.recent.report(self.live.running())

    def declare(self, info: TaskInfo) -> None:
        """Accept a task's name in every signal. Creates no metric."""
        self.tasks[info.name] = info
        for name in (info.name, info.workflow_name):
            self.allowed_task_labels.add(name)
            if self._instruments is not None:
                self._instruments.allow_task(name)

    def zero_enqueues(self) -> None:
        """Create the enqueue series of every declared task, with 0. Does nothing if no task was declared since."""
        if self._zeroed_tasks != len(self.tasks):
            self._zeroed_tasks = len(self.tasks)
            for info in list(self.tasks.values()):
                self.instruments.zero_producer(info.workflow_name)

    def task_label(self, name: str) -> str:
        """A task's name without the namespace."""
        is_namespaced = self.namespace and name not in self.allowed_task_labels
        return name.removeprefix(self.namespace) if is_namespaced else name

    def warn_of_exported_payloads(self) -> None:
        """Warn once if the SDK's instrumentor is active and exports the inputs of runs with its spans."""
        if self._has_warned_of_payloads:
            return
        with self.guards.log.catching("privacy"):
            if unexcluded := unexcluded_attributes():
                self._has_warned_of_payloads = True
                self.log.emit(events.PRIVACY_PAYLOAD_EXPORTED, not_excluded=list(unexcluded))

    def count_error(self, signal: str) -> None:
        """Add one to ``mageflow_telemetry_errors_total`` for a signal of `names.metrics.SIGNALS`. May raise."""
        if self.settings.metrics:
            self.instruments.inc(metrics.TELEMETRY_ERRORS, signal)
