"""The engine: one object that owns the parts and introduces them to each other.

Everything below runs on one event loop, and no method of a part awaits between a check and its change. Parts call
each other directly through the engine; what each owns is said in its module.
"""

from __future__ import annotations

from mageflow.engine.admission import Admission
from mageflow.engine.batches import Batches
from mageflow.engine.clock import Clock
from mageflow.engine.crons import Crons
from mageflow.engine.durable import Durable
from mageflow.engine.events import Events
from mageflow.engine.graph import Graph
from mageflow.engine.idempotency import Idempotency
from mageflow.engine.lifecycle import Lifecycle
from mageflow.engine.pauses import Pauses
from mageflow.engine.rate_limits import RateLimits
from mageflow.engine.registry import Registry
from mageflow.engine.results import Results
from mageflow.engine.run_events import RunEvents
from mageflow.engine.runs import Runs
from mageflow.engine.scheduler import Scheduler
from mageflow.engine.schedules import Schedules
from mageflow.engine.settings import Settings
from mageflow.engine.store import Store
from mageflow.engine.traces import Traces
from mageflow.engine.workers import Workers


class Engine:
    """An in-memory Hatchet engine; made inside a running event loop.

    Args:
        settings: how it runs.
        tenant_id: the one tenant.
    """

    def __init__(self, settings: Settings, tenant_id: str) -> None:
        self.settings = settings
        self.tenant_id = tenant_id
        self.clock = Clock(settings.speed)
        self.store = Store(keep_finished=settings.keep_finished)
        self.lifecycle = Lifecycle(self)
        self.scheduler = Scheduler(self)
        self.admission = Admission(self)
        self.pauses = Pauses(self)
        self.rate_limits = RateLimits(self)
        self.batches = Batches(self)
        self.graph = Graph(self)
        self.idempotency = Idempotency(self)
        self.runs = Runs(self)
        self.results = Results(self)
        self.run_events = RunEvents(self)
        self.events = Events(self)
        self.crons = Crons(self)
        self.schedules = Schedules(self)
        self.durable = Durable(self)
        self.traces = Traces(self)
        self.registry = Registry(self)
        self.workers = Workers(self, lost_after=settings.worker_lost_after)
