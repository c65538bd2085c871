"""What every scope of one client records with: the settings, the guard and the four ways to tell."""

from prometheus_client import REGISTRY, CollectorRegistry

from mageflow.config import Settings
from mageflow.interceptors import TaskInfo
from mageflow.telemetry.gauges import GaugeSource
from mageflow.telemetry.guard import Guard
from mageflow.telemetry.instrumentor import unexcluded_attributes
from mageflow.telemetry.live import LiveAttempts
from mageflow.telemetry.logs import EventLog
from mageflow.telemetry.metrics import Instruments, instruments_for
from mageflow.telemetry.names import events, metrics
from mageflow.telemetry.spans import Spans

__all__ = ["Recorder"]


class Recorder:
    """Shared by all scopes of one client. Creates no metric before one is recorded."""

    __slots__ = (
        "_instruments",
        "_is_export_told",
        "_sources",
        "_zeroed_tasks",
        "guard",
        "live",
        "log",
        "names",
        "namespace",
        "registry",
        "settings",
        "spans",
        "tasks",
    )

    def __init__(self, settings: Settings, *, registry: CollectorRegistry | None, spans: Spans) -> None:
        self.settings = settings
        self.registry = REGISTRY if registry is None else registry
        self.spans = spans
        self.namespace = ""
        """Prefix that Hatchet knows tasks by; taken off before a name becomes a label."""
        self.guard = Guard(self.count_error)
        self.guard.metrics.disabled = not settings.metrics
        self.log = EventLog(self.guard, settings.hatchet_log_level)
        self.tasks: dict[str, TaskInfo] = {}
        self.names: set[str] = set()
        """What may stand for a task in a label: tasks, and workflows, which are what is enqueued."""
        self.live = LiveAttempts(settings.near_timeout_ratio)
        self._instruments: Instruments | None = None
        self._is_export_told = False
        self._sources: list[GaugeSource] = [self.live]
        self._zeroed_tasks = 0

    @property
    def instruments(self) -> Instruments:
        """The instruments of the registry, created on first use."""
        return self._instruments or self._create()

    def _create(self) -> Instruments:
        instruments = instruments_for(self.registry, max_series=self.settings.metrics_max_series)
        for name in self.names:
            instruments.allow_task(name)
        for source in self._sources:
            instruments.gauges.add(source)
        self._instruments = instruments
        return instruments

    def add_gauges(self, source: GaugeSource) -> None:
        """Ask this source, too, when metrics are scraped. Creates nothing; held for as long as this client."""
        self._sources.append(source)
        if self._instruments is not None:
            self._instruments.gauges.add(source)

    def declare(self, info: TaskInfo) -> None:
        """Accept a task's name in every signal. Creates nothing."""
        self.tasks[info.name] = info
        for name in (info.name, info.workflow_name):
            self.names.add(name)
            if self._instruments is not None:
                self._instruments.allow_task(name)

    def zero_enqueues(self) -> None:
        """Create what enqueues of every declared task may count, with 0. Cheap where nothing was declared since."""
        if self._zeroed_tasks != len(self.tasks):
            self._zeroed_tasks = len(self.tasks)
            for info in list(self.tasks.values()):
                self.instruments.zero_producer(info.workflow_name)

    def task_label(self, name: str) -> str:
        """A task's name as Hatchet knows it, without the namespace."""
        return name.removeprefix(self.namespace) if self.namespace and name not in self.names else name

    def warn_of_exported_payloads(self) -> None:
        """Tell once, when the SDK's instrumentor is active and exports inputs with its spans."""
        if self._is_export_told:
            return
        with self.guard.logs.at("privacy"):
            if unexcluded := unexcluded_attributes():
                self._is_export_told = True
                self.log.emit(events.PRIVACY_PAYLOAD_EXPORTED, not_excluded=list(unexcluded))

    def count_error(self, signal: str) -> None:
        """Add one to ``mageflow_telemetry_errors_total``. May raise."""
        if self.settings.metrics:
            self.instruments.inc(metrics.TELEMETRY_ERRORS, signal)
