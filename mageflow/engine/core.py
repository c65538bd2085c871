"""The engine: makes the parts, gives each the parts that it uses, and connects their signals.

::

    Trigger -> Runs -> Graph -> Lifecycle.enqueue -> Pauses -> Admission -> TaskQueue or Batches
            -> Scheduler -> Lifecycle.assign -> the worker's outbox
    report of the worker -> Lifecycle.attempt_* -> Graph (the tasks that follow), Completion (the end of the run)

A part has references only to parts that are made before it. What goes the other way is a signal.

All parts run on one event loop, and no method of a part awaits between a check and the change that follows it.
"""

from __future__ import annotations

from mageflow.engine.actions import Actions
from mageflow.engine.admission import Admission
from mageflow.engine.batches import Batches
from mageflow.engine.bulk import BulkRequests
from mageflow.engine.clock import Clock
from mageflow.engine.completion import Completion
from mageflow.engine.crons import Crons
from mageflow.engine.durable import DurableTasks
from mageflow.engine.events import Events
from mageflow.engine.filters import Filters
from mageflow.engine.graph import Graph
from mageflow.engine.idempotency import Idempotency
from mageflow.engine.lifecycle import Lifecycle
from mageflow.engine.pauses import Pauses
from mageflow.engine.rate_limits import RateLimits
from mageflow.engine.registry import Registry
from mageflow.engine.replays import Replays
from mageflow.engine.repository import Repository
from mageflow.engine.results import Results
from mageflow.engine.run_events import RunEvents
from mageflow.engine.runs import Runs
from mageflow.engine.scheduler import Scheduler
from mageflow.engine.schedules import Schedules
from mageflow.engine.settings import Settings
from mageflow.engine.task_queue import TaskQueue
from mageflow.engine.timeouts import Timeouts
from mageflow.engine.traces import Traces
from mageflow.engine.webhooks import Webhooks
from mageflow.engine.worker_pool import WorkerPool
from mageflow.engine.workers import Workers


class Engine:
    """An in-memory Hatchet engine. It is made inside a running event loop.

    Args:
        settings: the options of the process.
        tenant_id: the id of the one tenant.
    """

    def __init__(self, settings: Settings, tenant_id: str) -> None:
        self.tenant_id = tenant_id
        self.clock = Clock(settings.speed)
        self.repository = Repository(keep_finished=settings.keep_finished)
        # What happens to a task.
        self.run_events = RunEvents(self.clock)
        self.queue = TaskQueue(self.clock)
        self.pool = WorkerPool(self.queue)
        self.lifecycle = Lifecycle(self.clock, self.pool, self.run_events, Actions(tenant_id))
        self.rate_limits = RateLimits(self.clock, self.queue)
        self.batches = Batches(self.clock, self.queue, self.pool, self.lifecycle)
        self.timeouts = Timeouts(self.clock, self.lifecycle, self.batches)
        self.admission = Admission(self.lifecycle, self.rate_limits, self.queue, self.batches)
        self.pauses = Pauses(self.clock, self.lifecycle, self.admission)
        self.scheduler = Scheduler(self.queue, self.pool, self.rate_limits, self.lifecycle)
        self.workers = Workers(
            self.clock, self.repository, self.pool, self.lifecycle, lost_after=settings.worker_lost_after
        )
        # What happens to a run.
        self.graph = Graph(self.clock, self.lifecycle)
        self.idempotency = Idempotency(self.clock)
        self.runs = Runs(self.clock, self.repository, self.idempotency, self.graph)
        self.durable = DurableTasks(self.clock, self.repository, self.lifecycle, self.runs)
        self.completion = Completion(self.clock, self.repository)
        self.replays = Replays(self.repository, self.lifecycle, self.graph, self.durable)
        self.bulk = BulkRequests(self.repository, self.lifecycle, self.replays)
        self.results = Results(self.repository, self.clock)
        self.traces = Traces(self.repository)
        # What starts runs.
        self.filters = Filters(self.clock)
        self.events = Events(self.clock, self.repository, self.filters, self.runs)
        self.webhooks = Webhooks(self.clock, self.events)
        self.crons = Crons(self.clock, self.runs)
        self.schedules = Schedules(self.clock, self.runs)
        self.registry = Registry(self.clock, self.repository, self.filters, self.crons)
        self._connect()

    def _connect(self) -> None:
        """Connect the signals. Receivers are called in the order in which they stand here."""
        # Batches were admitted before the tasks that wait now.
        self.queue.pass_due.connect(self.batches.place, self.scheduler.run_pass)
        # The schedule timeout runs first: a pause stops it.
        self.lifecycle.queued.connect(self.timeouts.task_queued, self.pauses.task_queued)
        self.lifecycle.assigned.connect(self.durable.task_assigned, self.timeouts.task_assigned)
        self.lifecycle.released.connect(
            self.graph.release,
            self.queue.remove,
            self.pauses.release,
            self.batches.release,
            self.admission.release,
        )
        # The graph first: it may start another task, and then the run has not ended.
        self.lifecycle.finished.connect(self.graph.task_finished, self.completion.task_finished)
        self.runs.started.connect(self.traces.run_started)
        self.replays.reopened.connect(self.run_events.run_reopened)
        self.completion.finished.connect(
            self.admission.release_run,
            self.idempotency.run_finished,
            self.run_events.run_finished,
            self.results.run_finished,
            self.durable.run_finished,
        )
        self.completion.forgotten.connect(self.run_events.forget, self.durable.forget, self.traces.forget)
        self.events.pushed.connect(self.graph.event_pushed, self.durable.event_pushed)
        self.registry.deleted.connect(
            self.crons.remove_of, self.filters.remove_of, self.schedules.remove_of, self.pauses.unpause
        )
