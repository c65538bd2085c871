"""The client: a Hatchet client whose tasks explain themselves.

This file delegates and decides nothing: declarations are made in ``mageflow.hatchet``, attempts run in
``mageflow.invocation``, state is kept by ``mageflow.store`` and ``mageflow.flows``, signals by ``mageflow.telemetry``.
"""

import random as _random
from collections.abc import AsyncGenerator, Callable, Sequence
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
from mageflow.interceptors import Interceptor, InterceptorChain
from mageflow.store import RedisClient, RedisPort
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
        self._client, self._admin = sdk.instrumented_client(self.config, debug=self._client.debug, enqueuer=enqueuer)
        self._redis = RedisPort(
            redis_client if redis_client is not None else self.settings.resolved_redis_url(), interceptor
        )
        services = invocation.RunnerServices(
            host=sdk.SdkHost(enqueuer),
            interceptor=interceptor,
            random=random or _random.SystemRandom(),
            in_thread=self.telemetry.in_thread,
            signed=cast("Any", None),
        )
        self._declarations = sdk.Declarations(self.param_config, services, self.telemetry.declare_task)

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
        declared = [self._declarations.find_task(task) for task in sdk.tasks_of_worker(worker)]
        async with self.telemetry.worker(
            name=worker.name,
            slots=sdk.slots_of(worker),
            tasks=[each.info for each in declared if each is not None],
        ):
            yield


HatchetMageflow = Mageflow
