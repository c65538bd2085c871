"""`Mageflow`: the class that connects every part for one client.

It contains no rules of its own: ``mageflow.hatchet`` declares tasks, ``mageflow.invocation`` runs attempts,
``mageflow.store`` and ``mageflow.flows`` keep state, ``mageflow.telemetry`` records signals.
"""

import asyncio
import functools
import random as _random
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

from hatchet_sdk import Hatchet, Worker
from hatchet_sdk.config import ClientConfig
from hatchet_sdk.runnables.workflow import BaseWorkflow
from hatchet_sdk.worker.worker import LifespanFn
from opentelemetry.trace import TracerProvider
from prometheus_client import CollectorRegistry

from mageflow import hatchet as sdk
from mageflow import invocation, store
from mageflow.background import logged, restarted
from mageflow.client.creation import CreatingClient
from mageflow.client.declarations import DeclaringClient
from mageflow.client.stored import StoredClient
from mageflow.config import Settings
from mageflow.errors import ConfigurationError
from mageflow.interceptors import ClientCreated, Interceptor, InterceptorChain, WorkerDraining, WorkerInfo
from mageflow.telemetry import Telemetry
from mageflow.telemetry.child_logs import prepare_logs_of_child
from mageflow.telemetry.run_lines import note_actions
from mageflow.types import AcceptParams, RandomSource

if TYPE_CHECKING:
    from mageflow.client.services import RedisServices
    from mageflow.store import RedisClient
else:
    RedisClient = Any  # its types are those of redis-py, which a client without a Redis does not load

__all__ = ["HatchetMageflow", "Mageflow"]


class Mageflow(CreatingClient, StoredClient, DeclaringClient):
    """A Hatchet client with observability, signatures, staggering, locks and flows.

    It is a ``hatchet_sdk.Hatchet``: every method, property and keyword works as in the SDK, and functions written for
    the plain client run unchanged. The methods that declare tasks (``task``, ``durable_task``, ``batch_task``, and the
    same on ``workflow(...)``) put mageflow around them. Plain tasks need no Redis.

    The constructor opens no connection, listens on no port and registers no metric. A client may be used by several
    threads and event loops. Also named ``HatchetMageflow``.

    Args:
        hatchet_client: The client to build on. Its public ``config`` is read; the object is not changed.
        redis_client: A redis-py client, synchronous or asynchronous; or a URL (``redis://``, ``rediss://``,
            ``unix://``); or None for ``MAGEFLOW_REDIS_URL`` or ``REDIS_URL``. Without any of them the first operation
            that needs Redis raises `RedisNotConfiguredError`.
        param_config: The arguments that tasks get.
        settings: Read from the environment (``MAGEFLOW_*``) by default.
        interceptors: Your own interceptors; they run outside of mageflow's telemetry, the first outermost.
        registry: The registry for metrics; ``prometheus_client.REGISTRY`` by default.
        tracer_provider: The provider for spans; OpenTelemetry's global one by default.
        random: Draws stagger delays; ``random.SystemRandom()`` by default.

    Raises:
        ConfigurationError: ``hatchet_client`` is not a Hatchet client, or ``redis_client`` is neither a client nor a
            URL of Redis.
    """

    def __init__(
        self,
        hatchet_client: Hatchet,
        redis_client: RedisClient = None,
        param_config: AcceptParams = AcceptParams.NO_CTX,
        *,
        settings: Settings | None = None,
        interceptors: Sequence[Interceptor] = (),
        registry: CollectorRegistry | None = None,
        tracer_provider: TracerProvider | None = None,
        random: RandomSource | None = None,
    ) -> None:
        _refuse_other(hatchet_client)
        super().__init__(config=hatchet_client.config)
        self.settings = settings or Settings()
        self.param_config = AcceptParams(param_config)
        self.telemetry = Telemetry(self.settings, registry=registry, tracer_provider=tracer_provider)
        self._interceptor = InterceptorChain([*interceptors, self.telemetry.interceptor])
        self._interceptor.event(self._created())
        self._register = sdk.TaskRegister()
        self._shutdown = invocation.Shutdown()
        self._hooks = sdk.Hooks(self._interceptor)
        enqueuer = sdk.Enqueuer(self._interceptor)
        admin = self._observe_sends(enqueuer, debug=sdk.debug_of(hatchet_client))
        runs = sdk.bounded(self.runs)
        self._confirmations = invocation.OutcomeConfirmations(
            functools.partial(sdk.ending_of, runs),
            functools.partial(sdk.has_begun_before, runs),
            self._interceptor,
        )
        extend = invocation.TimeoutExtender(self._interceptor)
        given = redis_client if redis_client is not None else self.settings.resolved_redis_url()
        port = store.RedisPort(given, self._interceptor)
        self._connect(port, functools.partial(self._load_services, admin, extend))
        services = self._runner_services(extend, random or _random.SystemRandom())
        with self._hooks.installing("declarations", "it is found by its type"):
            sdk.require_names("declarations")
        self._declarations = sdk.Declarations(
            self._register, self.param_config, services, enqueuer.durable_spawn, self._hooks
        )

    def _created(self) -> ClientCreated:
        address, _, port_number = self.config.host_port.rpartition(":")
        return ClientCreated(
            server_address=address,
            server_port=int(port_number) if port_number.isdecimal() else None,
            namespace=self.namespace,
            hide_from_log_forwarder=functools.partial(sdk.HiddenFromLogForwarder, self.config.logger),
        )

    def _observe_sends(self, enqueuer: sdk.Enqueuer, *, debug: bool) -> sdk.ObservedAdminClient:
        """Make every send of this client go through the interceptors, and be noted in case nothing serves it."""
        observed, admin = sdk.instrumented_client(self.config, debug=debug, enqueuer=enqueuer)
        sdk.set_client(self, observed)
        enqueuer.watch(
            sdk.UnservedWatch(
                self.config,
                observed.runs,
                observed.workers,
                self._interceptor,
                self.settings.unserved_warning_seconds,
                lambda: [each.name for each in self._register.runnables()],
            )
        )
        return admin

    def _runner_services(self, extend: invocation.TimeoutExtender, random: RandomSource) -> invocation.RunnerServices:
        return invocation.RunnerServices(
            interceptor=self._interceptor,
            random=random,
            signed=invocation.SignedRuns(
                lambda: self._flows, sdk.as_non_retryable, extend, self.settings.redis_wait_extension_seconds
            ),
            extend=extend,
            confirmations=self._confirmations,
            is_non_retryable=sdk.is_non_retryable,
            shutdown=self._shutdown,
            on_end=(self._release_locks, self._stop_heartbeat),
        )

    @classmethod
    def from_embedded(cls, config: ClientConfig | None = None) -> "Mageflow":
        """Start a local engine and return a client connected to it. For development: no token and no Docker.

        By default the SDK downloads Hatchet's engine on first use and starts a Postgres beside it. If the environment
        variable ``HATCHET_CLIENT_EMBEDDED_BINARY_PATH`` is the path of the ``mageflow-engine`` script, the engine is
        mageflow's own: in memory, without a download and without a database. ``stop_embedded`` stops either.

        Args:
            config: The SDK's configuration; its token, tenant, addresses and TLS are replaced by those of the engine.

        Returns:
            A client without Redis of its own: it uses ``MAGEFLOW_REDIS_URL`` or ``REDIS_URL`` where set.
        """
        return cls(sdk.method_of(Hatchet, "from_embedded")(config))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return the client itself: objects that hold it can be copied, its connections and metrics cannot."""
        return self

    # -- workers -------------------------------------------------------------------------------------------------

    def worker(
        self,
        name: str,
        slots: int | None = None,
        durable_slots: int | None = None,
        labels: dict[str, str | int] | None = None,
        workflows: list[BaseWorkflow[Any]] | None = None,
        lifespan: LifespanFn | None = None,
    ) -> Worker:
        """Make a worker; start it with ``worker.start()``, which blocks.

        While it runs, the process serves ``/metrics``, ``/healthz``, ``/debug/locks`` and ``/debug/runs`` on the first
        free port from ``MAGEFLOW_METRICS_PORT`` (18001) upwards; without a free port the worker runs without them and
        logs a warning. With Redis it also renews the leases of its locks, sends what a stopped worker could not send,
        and takes part in the election of the worker that exports the gauges of the whole cluster.

        Args:
            name: The name of the worker in Hatchet and in telemetry.
            slots: How many tasks run at a time; by default 100.
            durable_slots: How many durable tasks run at a time; by default 1000.
            labels: Labels that ``desired_worker_labels`` of a task selects by.
            workflows: Tasks and workflows to run; ``worker.register_workflow`` adds more.
            lifespan: An asynchronous generator: it starts before the first task, what it yields is
                ``ctx.lifespan``, and the rest of it runs after the last task. mageflow's own work surrounds it.

        Returns:
            The SDK's worker.

        Raises:
            ConfigurationError: ``workflows`` is one task and not a list, or has a function that was not declared.
            TypeError: An item of ``workflows`` is not a task or workflow, for example a task *of* a workflow.
        """
        sdk.refuse_no_tasks(workflows)
        worker = super().worker(name, slots, durable_slots, labels, workflows, lifespan)
        user_lifespan: LifespanFn | None = None
        with self._hooks.installing("listener", "logs of the listener process have no context"):
            sdk.prepare_listener(worker, lambda: self._logs_of_listener(worker))
        with self._hooks.installing("reports", "an error text that Hatchet cannot store is not sent"):
            sdk.send_storable_errors(worker)
        with self._hooks.installing("exit", "the worker is not prepared for its end"):
            sdk.before_exit(worker, lambda: self._draining(worker))
        with self._hooks.installing("lifespan", "the worker serves no metrics and reconciles no flows"):
            user_lifespan = sdk.set_lifespan(worker, lambda: self._lifespan(worker, user_lifespan))
        return worker

    def _load_services(self, admin: sdk.ObservedAdminClient, extend: invocation.TimeoutExtender) -> "RedisServices":
        from mageflow.client.services import RedisServices  # noqa: PLC0415 - a worker without Redis loads none of it

        return RedisServices(self, admin, self._port, self._register, self.settings, self._interceptor, extend)

    def _logs_of_listener(self, worker: Worker) -> Callable[[], None] | None:
        with self._hooks.installing("actions", "the SDK's lines of every run stay in the log"):
            tasks = sdk.tasks_of_worker(worker)
            own = [action for action, task in tasks.items() if self._register.find_task(task) is not None]
            note_actions(own, self.telemetry)
        return prepare_logs_of_child()

    def _draining(self, worker: Worker) -> None:
        self._interceptor.event(WorkerDraining(worker.name))
        self._shutdown.begin()

    async def _lifespan(self, worker: Worker, user_lifespan: LifespanFn | None) -> AsyncGenerator[Any, Any]:
        async with self._serving(worker):
            if user_lifespan is None:
                yield None
                return
            generator = user_lifespan()
            try:
                yield await anext(generator, None)
                await anext(generator, None)
            finally:
                await generator.aclose()

    @asynccontextmanager
    async def _serving(self, worker: Worker) -> AsyncGenerator[None]:
        sdk.note_worker()
        info = WorkerInfo(worker.name, {}, [])
        with self._hooks.installing("worker", "the metrics of slots are missing"):
            declared = [self._register.find_task(task) for task in sdk.tasks_of_worker(worker).values()]
            info = WorkerInfo(worker.name, sdk.slots_of(worker), [each.info for each in declared if each is not None])
        if self._has_redis:
            info.lock_report = lambda: self._locks.snapshot_in_thread().document()
        async with self._interceptor.worker(info), self._upkeep(), self._confirmations.running():
            try:
                yield
            finally:
                self._shutdown.end()

    @asynccontextmanager
    async def _upkeep(self) -> AsyncGenerator[None]:
        """Run a worker's background work for the state in Redis; nothing without Redis."""
        if not self._has_redis:
            yield
            return
        services = self._services
        await services.locks.start()
        tasks = [
            asyncio.create_task(
                logged(services.examine_server, "the examination of Redis"), name="mageflow-redis-examination"
            ),
            asyncio.create_task(restarted(services.flows.reconciler().run, "sweeps"), name="mageflow-reconciler"),
        ]
        if self.settings.cluster_view == "leader":
            tasks.append(
                asyncio.create_task(
                    restarted(services.cluster.run, "readings of the cluster"), name="mageflow-cluster-view"
                )
            )
            if self.settings.queue_interval_s:
                tasks.append(
                    asyncio.create_task(
                        restarted(services.queue.run, "readings of the queue"), name="mageflow-queue-view"
                    )
                )
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.aclose()


def _refuse_other(hatchet_client: object) -> None:
    """Raise if a program, which may not check its types, gives something else than a Hatchet client."""
    if not isinstance(hatchet_client, Hatchet):
        raise ConfigurationError(
            f"Mageflow wraps a Hatchet client: write Mageflow(Hatchet()), not Mageflow({type(hatchet_client).__name__})"
        )


HatchetMageflow = Mageflow
