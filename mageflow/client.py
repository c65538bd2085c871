"""The client: a Hatchet client whose tasks explain themselves.

This file delegates and decides nothing: declarations are made in ``mageflow.hatchet``, attempts run in
``mageflow.invocation``, state is kept by ``mageflow.store`` and ``mageflow.flows``, signals by ``mageflow.telemetry``.
"""

import asyncio
import random as _random
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast, overload

from hatchet_sdk import Hatchet, Worker
from hatchet_sdk.config import ClientConfig
from hatchet_sdk.runnables.types import EmptyModel, TWorkflowInput
from hatchet_sdk.runnables.workflow import BaseWorkflow
from hatchet_sdk.worker.worker import LifespanFn
from opentelemetry.trace import TracerProvider
from prometheus_client import CollectorRegistry
from typing_extensions import Unpack

from mageflow import hatchet as sdk
from mageflow import invocation
from mageflow.config import Settings
from mageflow.errors import ConfigurationError
from mageflow.flows import Flows
from mageflow.interceptors import Interceptor, InterceptorChain
from mageflow.locks import LockService, OnLost, Resource, exclusive_mark
from mageflow.signatures import ChainSignature, Status, SwarmConfig, SwarmSignature, TaskSignature
from mageflow.store import AnySignature, Keys, LockStore, RedisClient, RedisPort, Store, VictimPolicy
from mageflow.telemetry import Telemetry
from mageflow.types import AcceptParams, RandomSource

__all__ = ["HatchetMageflow", "Mageflow"]

F = TypeVar("F", bound=Callable[..., Any])


class Mageflow(Hatchet):
    """A Hatchet client with observability, signatures, staggering and flows.

    It is a `hatchet_sdk.Hatchet`: every method, property and keyword works as in the SDK, and functions written for the
    plain client run unchanged. Whatever declares a task (``task``, ``durable_task``, ``batch_task``, and the same on
    ``workflow(...)``) puts mageflow around it. Plain tasks need no Redis.

    Nothing connects, listens or registers a metric when a client is made.

    Args:
        hatchet_client: The client to build on. Its public ``config`` is used; the object itself is left alone.
        redis_client: A redis-py client (synchronous or asynchronous, used as it is), a URL (``redis://``,
            ``rediss://``, ``unix://``), or None: then ``MAGEFLOW_REDIS_URL`` or ``REDIS_URL`` where set, and else a
            `RedisNotConfiguredError` from the first operation that needs Redis.
        param_config: What tasks are handed by default.
        settings: Tuning; read from ``MAGEFLOW_*`` when not given.
        interceptors: The program's own, outside of mageflow's telemetry.
        registry: Where metrics are registered; `prometheus_client.REGISTRY` by default.
        tracer_provider: OpenTelemetry's global one by default.
        random: What stagger delays are drawn from.

    Raises:
        ConfigurationError: ``hatchet_client`` is no Hatchet client, or ``redis_client`` is nothing Redis can be reached
            by.
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
        if not isinstance(hatchet_client, Hatchet):  # pyright: ignore[reportUnnecessaryIsInstance] callers may not type-check
            raise ConfigurationError(
                "Mageflow wraps a Hatchet client: write Mageflow(Hatchet()), not "
                f"Mageflow({type(hatchet_client).__name__})"
            )
        super().__init__(config=hatchet_client.config)
        self.settings = settings or Settings()
        self.param_config = AcceptParams(param_config)
        self.telemetry = Telemetry(
            self.settings, registry=registry, tracer_provider=tracer_provider, namespace=self.namespace
        )
        interceptor = InterceptorChain([*interceptors, self.telemetry.interceptor])
        enqueuer = sdk.Enqueuer(interceptor)
        self._client, admin = sdk.instrumented_client(self.config, debug=self._client.debug, enqueuer=enqueuer)
        port = RedisPort(redis_client if redis_client is not None else self.settings.resolved_redis_url(), interceptor)
        keys = Keys(self.settings.key_prefix, self.namespace)
        host = sdk.SdkHost(enqueuer)
        extend = invocation.TimeoutExtender(host, interceptor)
        self._has_redis = port.is_configured
        self._locks = LockService(
            LockStore(port, keys),
            interceptor,
            extend=extend,
            raw_keys=self.settings.lock_resource_detail == "raw",
        )
        self._register = sdk.TaskRegister()
        self._flows = Flows(
            Store(port, keys, self.settings, interceptor),
            sdk.SdkDispatcher(admin, self._client.runs),
            sdk.SdkCatalog(self._register),
            self.settings,
            interceptor,
        )
        services = invocation.RunnerServices(
            host=host,
            interceptor=interceptor,
            random=random or _random.SystemRandom(),
            in_thread=self.telemetry.in_thread,
            signed=invocation.StoredRuns(self._flows, self.telemetry.current_traceparent, host.non_retryable),
            extend=extend,
            on_end=(self._locks.release_run,),
        )
        self._declarations = sdk.Declarations(self._register, self.param_config, services, self.telemetry.declare_task)
        self._flows.bind_runner(sdk.SdkSignatureRunner(self, self._register, self._flows))

    @classmethod
    def from_embedded(cls, config: ClientConfig | None = None) -> "Mageflow":
        """A client on an embedded engine; see `hatchet_sdk.Hatchet.from_embedded`.

        With ``HATCHET_CLIENT_EMBEDDED_BINARY_PATH`` set to the ``mageflow-engine`` script the engine is mageflow's own:
        no download and no database.
        """
        return cls(Hatchet.from_embedded(config))

    # -- decorators ----------------------------------------------------------------------------------------------

    def with_ctx(self, func: F) -> F:
        """Hand this task the Hatchet context, whatever the client's ``param_config``.

        See `mageflow.invocation.with_ctx`; goes below ``@client.task``.
        """
        return invocation.with_ctx(func)

    def with_signature(self, func: F) -> F:
        """Hand this task its own `TaskSignature`; see `mageflow.invocation.with_signature`."""
        return invocation.with_signature(func)

    def stagger_execution(self, wait_delta: timedelta) -> Callable[[F], F]:
        """Delay each attempt by a random time up to ``wait_delta``; see `mageflow.invocation.stagger_execution`."""
        return invocation.stagger_execution(wait_delta)

    def exclusive(
        self,
        *resources: Resource | str,
        key: Callable[[Any], str | int] | None = None,
        timeout: timedelta | None = None,
        extend_timeout: bool = True,
        policy: VictimPolicy = "requester",
        on_lost: OnLost = "cancel",
    ) -> Callable[[F], F]:
        """Hold resources around the whole body of a task; goes below ``@client.task``, in any order with the others.

        They are taken after the stagger, all or none, and given back however the attempt ends. See `Resource.acquire`
        for the arguments, and `mageflow.locks.exclusive_mark` for ``key``, a function of the message.

        Raises:
            DecorationError: No resource is named, or ``key`` takes no message.
        """
        mark = exclusive_mark(
            self._locks,
            *resources,
            key=key,
            timeout=timeout,
            extend_timeout=extend_timeout,
            policy=policy,
            on_lost=on_lost,
        )
        return invocation.exclusive(mark)

    # -- locks ---------------------------------------------------------------------------------------------------

    @property
    def locks(self) -> LockService:
        """The locks of this client's namespace: several resources at once, and who holds what."""
        return self._locks

    def resource(self, name: str) -> Resource:
        """Declare something only one run may use at a time; see `mageflow.locks.LockService.resource`."""
        return self._locks.resource(name)

    # -- signatures and flows ------------------------------------------------------------------------------------

    async def sign(
        self,
        task: object,
        /,
        *,
        task_identifiers: Mapping[str, Any] | None = None,
        success_callbacks: Sequence[object] = (),
        error_callbacks: Sequence[object] = (),
        bind: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> TaskSignature:
        """Store a task with values bound to it; see `mageflow.flows.Flows.sign`. One round trip to Redis."""
        return await self._flows.sign(
            task,
            task_identifiers=task_identifiers,
            success_callbacks=success_callbacks,
            error_callbacks=error_callbacks,
            bind=bind,
            **kwargs,
        )

    async def chain(
        self,
        tasks: Sequence[object],
        name: str | None = None,
        success: object = (),
        error: object = (),
        *,
        bind: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> ChainSignature:
        """Store tasks that run one after another; see `mageflow.flows.Flows.chain`. One round trip to Redis."""
        return await self._flows.chain(tasks, name, success, error, bind=bind, **kwargs)

    async def swarm(
        self,
        tasks: Sequence[object] = (),
        name: str | None = None,
        config: SwarmConfig | None = None,
        success_callbacks: Sequence[object] = (),
        error_callbacks: Sequence[object] = (),
        *,
        closed: bool = False,
        bind: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> SwarmSignature:
        """Store tasks that run side by side; see `mageflow.flows.Flows.swarm`. One round trip to Redis."""
        return await self._flows.swarm(
            tasks, name, config, success_callbacks, error_callbacks, closed=closed, bind=bind, **kwargs
        )

    async def load_signature(self, key: str) -> AnySignature:
        """A signature, a chain, a swarm or a member of one, as it is now; see `mageflow.flows.Flows.load`."""
        return await self._flows.load(key)

    async def suspend(self, signature: AnySignature | str, *, by: str = "", why: str = "") -> Status:
        """Let nothing more of a signature or flow start, by object or key; see `mageflow.lifecycle`."""
        return await self._flows.suspend(_key(signature), by=by, why=why)

    async def resume(self, signature: AnySignature | str, *, by: str = "", why: str = "") -> Status:
        """Go on from where `suspend` stopped it; see `mageflow.lifecycle`."""
        return await self._flows.resume(_key(signature), by=by, why=why)

    async def interrupt(self, signature: AnySignature | str, *, by: str = "", why: str = "") -> Status:
        """End it now, and cancel in Hatchet what runs; see `mageflow.lifecycle`."""
        return await self._flows.interrupt(_key(signature), by=by, why=why)

    async def remove(self, signature: AnySignature | str) -> bool:
        """Delete everything stored for it; see `mageflow.lifecycle`. True when there was something to delete."""
        return await self._flows.remove(_key(signature))

    asign = sign
    achain = chain
    aswarm = swarm

    # -- declarations --------------------------------------------------------------------------------------------

    @overload
    def task(
        self,
        *,
        name: str | None = None,
        input_validator: None = None,
        cron_input: None = None,
        **options: Unpack[sdk.TaskOptions],
    ) -> sdk.InferringDecorator: ...
    @overload
    def task(
        self,
        *,
        name: str | None = None,
        input_validator: type[TWorkflowInput],
        cron_input: TWorkflowInput | None = None,
        **options: Unpack[sdk.TaskOptions],
    ) -> sdk.TaskDecorator[TWorkflowInput]: ...
    def task(  # pyright: ignore[reportIncompatibleMethodOverride] wider functions, same keywords
        self, *, name: str | None = None, input_validator: Any = None, **options: Any
    ) -> Any:
        """Declare a stand-alone task; see `hatchet_sdk.Hatchet.task` for every keyword.

        Without an ``input_validator`` the message's own annotation is the input type, where it is a pydantic model, a
        dataclass or a dict.

        Raises:
            DecorationError: The function's parameters or decorators ask for what cannot be.
        """

        def decorate(func: Callable[..., Any]) -> Any:
            validator = input_validator or sdk.inferred_validator(func)
            declare = super(Mageflow, self).task(name=name, input_validator=validator, **options)
            return self._declarations.standalone(cast("Any", declare), func)

        return decorate

    @overload
    def durable_task(
        self,
        *,
        name: str | None = None,
        input_validator: None = None,
        cron_input: None = None,
        **options: Unpack[sdk.DurableOptions],
    ) -> sdk.InferringDecorator: ...
    @overload
    def durable_task(
        self,
        *,
        name: str | None = None,
        input_validator: type[TWorkflowInput],
        cron_input: TWorkflowInput | None = None,
        **options: Unpack[sdk.DurableOptions],
    ) -> sdk.TaskDecorator[TWorkflowInput]: ...
    def durable_task(  # pyright: ignore[reportIncompatibleMethodOverride] wider functions, same keywords
        self, *, name: str | None = None, input_validator: Any = None, **options: Any
    ) -> Any:
        """Declare a stand-alone durable task; see `hatchet_sdk.Hatchet.durable_task` for every keyword.

        A stagger delays the first invocation only, not what is replayed after an eviction.

        Raises:
            DecorationError: The function's parameters or decorators ask for what cannot be.
        """

        def decorate(func: Callable[..., Any]) -> Any:
            validator = input_validator or sdk.inferred_validator(func)
            declare = super(Mageflow, self).durable_task(name=name, input_validator=validator, **options)
            return self._declarations.standalone(cast("Any", declare), func)

        return decorate

    @overload
    def batch_task(
        self, *, name: str | None = None, input_validator: None = None, **options: Unpack[sdk.BatchOptions]
    ) -> sdk.InferringBatchDecorator: ...
    @overload
    def batch_task(
        self, *, name: str | None = None, input_validator: type[TWorkflowInput], **options: Unpack[sdk.BatchOptions]
    ) -> sdk.TaskBatchDecorator[TWorkflowInput]: ...
    def batch_task(  # pyright: ignore[reportIncompatibleMethodOverride] wider functions, same keywords
        self, *, name: str | None = None, input_validator: Any = None, **options: Any
    ) -> Any:
        """Declare a stand-alone batch task; see `hatchet_sdk.Hatchet.batch_task` for every keyword.

        Raises:
            DecorationError: It is staggered or asks for a signature, which a batch of many runs cannot have.
        """

        def decorate(func: Callable[..., Any]) -> Any:
            validator = input_validator or sdk.inferred_validator(func, is_batch=True)
            declare = cast("Any", super(Mageflow, self)).batch_task(name=name, input_validator=validator, **options)
            return self._declarations.standalone(declare, func, is_batch=True)

        return decorate

    @overload
    def workflow(
        self,
        *,
        name: str,
        input_validator: None = None,
        cron_input: None = None,
        **options: Unpack[sdk.WorkflowOptions],
    ) -> sdk.MageflowWorkflow[EmptyModel]: ...
    @overload
    def workflow(
        self,
        *,
        name: str,
        input_validator: type[TWorkflowInput],
        cron_input: TWorkflowInput | None = None,
        **options: Unpack[sdk.WorkflowOptions],
    ) -> sdk.MageflowWorkflow[TWorkflowInput]: ...
    def workflow(  # pyright: ignore[reportIncompatibleMethodOverride] a subclass, same keywords
        self, *, name: str, input_validator: Any = None, **options: Any
    ) -> Any:
        """Declare a workflow; see `hatchet_sdk.Hatchet.workflow` for every keyword."""
        workflow = super().workflow(name=name, input_validator=input_validator, **options)
        return sdk.MageflowWorkflow(cast("Any", workflow), self, self._declarations)

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
        """Make a worker; see `hatchet_sdk.Hatchet.worker`.

        While it runs it serves ``/metrics`` and ``/healthz`` (first free port from ``MAGEFLOW_METRICS_PORT``, 18001);
        when the port is taken the worker runs without.
        """
        worker = super().worker(name, slots, durable_slots, labels, workflows, lifespan)
        user_lifespan = sdk.set_lifespan(worker, lambda: self._lifespan(worker, user_lifespan))
        return worker

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
        declared = [self._register.find_task(task) for task in sdk.tasks_of_worker(worker)]
        async with (
            self.telemetry.worker(
                name=worker.name,
                slots=sdk.slots_of(worker),
                tasks=[each.info for each in declared if each is not None],
            ),
            self._upkeep(),
        ):
            yield

    @asynccontextmanager
    async def _upkeep(self) -> AsyncGenerator[None]:
        """What a worker does beside its tasks for what is kept in Redis; nothing without Redis."""
        if not self._has_redis:
            yield
            return
        await self._locks.start()
        reconciling = asyncio.create_task(self._flows.reconciler().run(), name="mageflow-reconciler")
        try:
            yield
        finally:
            reconciling.cancel()
            await asyncio.gather(reconciling, return_exceptions=True)
            await self._flows.drain()
            await self._locks.aclose()


def _key(signature: AnySignature | str) -> str:
    return signature if isinstance(signature, str) else signature.key


HatchetMageflow = Mageflow
