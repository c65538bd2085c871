"""Every call that sends a run to Hatchet, inside `Interceptor.enqueue` once.

The SDK reaches the engine through a handful of client classes. Each has a subclass here that opens an `Enqueue` call
around the original method and sends the metadata that the interceptors wrote. The caller's options are not changed.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final, Literal

from hatchet_sdk.client import Client
from hatchet_sdk.clients.admin import AdminClient
from hatchet_sdk.clients.events import Event, EventClient
from hatchet_sdk.config import ClientConfig
from hatchet_sdk.contracts.workflows_pb2 import WorkflowVersion
from hatchet_sdk.features.cron import CronClient
from hatchet_sdk.features.runs import RunsClient
from hatchet_sdk.features.scheduled import ScheduledClient
from hatchet_sdk.workflow_run import WorkflowRunRef
from typing_extensions import override

from mageflow.hatchet.client_compat import sending_within
from mageflow.hatchet.compat import running_task_id
from mageflow.hatchet.forked_clients import watch_forks
from mageflow.hatchet.sdk_names import (
    BulkPushEventWithMetadata,
    ScheduleTriggerWorkflowOptions,
    TriggerWorkflowOptions,
    WorkflowRunTriggerConfig,
)
from mageflow.hatchet.unserved import UnservedWatch
from mageflow.interceptors import Enqueue, EnqueueItem, Interceptor
from mageflow.metadata import KEY_SOURCE, blank, stamp
from mageflow.store import signature_id_of
from mageflow.types import DispatchRun, Source

__all__ = ["Enqueuer", "ObservedAdminClient", "enqueue_item", "instrumented_client", "on_behalf_of"]


_SEND_SECONDS: Final = 15.0
"""Longest send of the runs of a flow. An attempt that has ended waits for it, and a reconciler sends what it left."""

_signed: ContextVar[DispatchRun | None] = ContextVar("mageflow_signed_run", default=None)
"""The run of a signature for which the SDK's own ``run`` method is called further up the stack."""


@contextmanager
def on_behalf_of(run: DispatchRun) -> Generator[None]:
    """Send the one run that the SDK enqueues inside this block as a run of a signature."""
    token = _signed.set(run)
    try:
        yield
    finally:
        _signed.reset(token)


def enqueue_item(
    run: DispatchRun,
    metadata: Mapping[str, Any] | None = None,
    *,
    default_metadata: Mapping[str, Any] | None = None,
    sender: str = "",
    due_at: float | None = None,
) -> EnqueueItem:
    """A run of a signature as an item of an enqueue. The last of default, run and ``metadata`` wins.

    ``sender`` is the id of the task that becomes the parent of the run. ``due_at`` are epoch seconds.
    """
    signature_id = signature_id_of(run.signature_key)
    stamped = stamp(
        {**(default_metadata or {}), **run.metadata, **(metadata or {})},
        source=run.source,
        run=run,
        due_at=due_at,
        schedule="" if due_at is None else signature_id,
        sender=sender,
    )
    return EnqueueItem(run.task_name, stamped, signature_id=signature_id, traceparent=run.traceparent)


class Enqueuer:
    """Opens the call around one enqueue, for every client class."""

    def __init__(self, interceptor: Interceptor) -> None:
        self._interceptor = interceptor
        self._watch: UnservedWatch | None = None

    def watch(self, watch: UnservedWatch) -> None:
        """Note every run that is about to be sent, so that one that does not start is noticed."""
        self._watch = watch

    @contextmanager
    def single(
        self,
        task: str,
        metadata: dict[str, Any],
        *,
        operation: Literal["run", "schedule", "push_event"] = "run",
        source: Source = "direct",
        due_at: datetime | None = None,
    ) -> Generator[EnqueueItem]:
        """Around the enqueue of one run. The caller sends the ``metadata`` of the item it yields."""
        signed = _signed.get()
        due = due_at.timestamp() if due_at else None
        if signed is None:
            item = EnqueueItem(task, stamp(metadata, source=source, due_at=due))
        else:
            # A scheduled run has no parent, so no sender that admission compares with it.
            sender = "" if operation == "schedule" else running_task_id()
            item, source = enqueue_item(signed, metadata, sender=sender, due_at=due), signed.source
        call = Enqueue(operation, [item], source=source, due_at=due)
        with self.around(call):
            yield item

    @contextmanager
    def bulk(
        self, configs: Sequence[WorkflowRunTriggerConfig], *, is_durable_spawn: bool = False
    ) -> Generator[tuple[list[WorkflowRunTriggerConfig], Sequence[EnqueueItem]]]:
        """Around the enqueue of several runs. The caller sends the configs it yields, which are copies."""
        items = [
            EnqueueItem(each.workflow_name, stamp(each.options.additional_metadata, source="direct"))
            for each in configs
        ]
        operation: Literal["run", "run_many"] = "run" if is_durable_spawn and len(items) == 1 else "run_many"
        with self.around(Enqueue(operation, items, is_durable_spawn=is_durable_spawn)):
            yield _stamped_configs(configs, items), items

    async def durable_spawn(self, configs: list[WorkflowRunTriggerConfig], spawn: Callable[..., Any]) -> Any:
        """Spawn a durable task's children through its own stream."""
        with self.bulk(configs, is_durable_spawn=True) as (observed, items):
            spawned = await spawn(observed)
            # 1.29.0 does not say the ids.
            _note_run_ids(items, [getattr(each, "workflow_run_external_id", "") for each in spawned])
        return spawned

    def around(self, call: Enqueue) -> AbstractContextManager[object]:
        """The interceptor's context manager for a call that its caller has described."""
        if self._watch is not None and call.operation in ("run", "run_many"):
            self._watch.note(call.items)
        return self._interceptor.enqueue(call)


def stamped(options: TriggerWorkflowOptions, item: EnqueueItem) -> TriggerWorkflowOptions:
    """A copy of the options with the metadata that the interceptors wrote."""
    return options.model_copy(update={"additional_metadata": dict(item.metadata)})


def _stamped_configs(
    configs: Sequence[WorkflowRunTriggerConfig], items: Sequence[EnqueueItem]
) -> list[WorkflowRunTriggerConfig]:
    return [
        each.model_copy(update={"options": stamped(each.options, item)})
        for each, item in zip(configs, items, strict=True)
    ]


def _note_run_ids(items: Sequence[EnqueueItem], run_ids: Sequence[str]) -> None:
    for item, run_id in zip(items, run_ids, strict=True):
        item.run_id = run_id


class ObservedAdminClient(AdminClient):
    """Runs and schedules over gRPC."""

    def __init__(self, client: Client, enqueuer: Enqueuer) -> None:
        super().__init__(client.config, client.workflow_listener, client.listener)
        self._enqueuer = enqueuer

    @override
    def run_workflow(
        self,
        workflow_name: str,
        input: str | None,
        options: TriggerWorkflowOptions = TriggerWorkflowOptions(),  # noqa: B008 - the SDK's default, never written to
    ) -> WorkflowRunRef:
        """Send one run, inside `Interceptor.enqueue`, with the metadata that it wrote."""
        with self._enqueuer.single(workflow_name, options.additional_metadata) as item:
            reference = super().run_workflow(workflow_name, input, stamped(options, item))
            item.run_id = reference.workflow_run_id
        return reference

    @override
    async def aio_run_workflow(
        self,
        workflow_name: str,
        input: str | None,
        options: TriggerWorkflowOptions = TriggerWorkflowOptions(),  # noqa: B008 - the SDK's default, never written to
    ) -> WorkflowRunRef:
        """Send one run, inside `Interceptor.enqueue`, with the metadata that it wrote."""
        with self._enqueuer.single(workflow_name, options.additional_metadata) as item:
            reference = await super().aio_run_workflow(workflow_name, input, stamped(options, item))
            item.run_id = reference.workflow_run_id
        return reference

    @override
    def run_workflows(self, workflows: list[WorkflowRunTriggerConfig]) -> list[WorkflowRunRef]:
        """Send several runs in one `Interceptor.enqueue`, each with the metadata that it wrote."""
        with self._enqueuer.bulk(workflows) as (observed, items):
            references = super().run_workflows(observed)
            _note_run_ids(items, [each.workflow_run_id for each in references])
        return references

    @override
    async def aio_run_workflows(self, workflows: list[WorkflowRunTriggerConfig]) -> list[WorkflowRunRef]:
        """Send several runs in one `Interceptor.enqueue`, each with the metadata that it wrote."""
        with self._enqueuer.bulk(workflows) as (observed, items):
            references = await super().aio_run_workflows(observed)
            _note_run_ids(items, [each.workflow_run_id for each in references])
        return references

    async def dispatch(self, call: Enqueue, configs: list[WorkflowRunTriggerConfig]) -> list[str]:
        """Send the runs of a flow, inside `Interceptor.enqueue` with this call. Returns the run ids in order.

        Raises:
            TimeoutError: Hatchet has not taken them after 15 s. It may have them all the same.
        """
        with self._enqueuer.around(call):
            bounded = sending_within(self, _SEND_SECONDS)
            references = await AdminClient.aio_run_workflows(bounded, _stamped_configs(configs, call.items))
            run_ids = [each.workflow_run_id for each in references]
            _note_run_ids(call.items, run_ids)
        return run_ids

    @override
    def schedule_workflow(
        self,
        name: str,
        schedules: list[datetime],
        input: str | None = None,
        options: ScheduleTriggerWorkflowOptions | None = None,
    ) -> WorkflowVersion:
        """Schedule runs, inside `Interceptor.enqueue`. The SDK's asynchronous method calls this one in a thread."""
        options = options or ScheduleTriggerWorkflowOptions()
        due_at = _utc(min(schedules)) if schedules else None
        with self._enqueuer.single(
            name, options.additional_metadata, operation="schedule", source="schedule", due_at=due_at
        ) as item:
            observed = options.model_copy(update={"additional_metadata": dict(item.metadata)})
            # The SDK sends an empty mapping as no input. Hatchet takes that for a run, and fails here: it is no JSON.
            return super().schedule_workflow(name, schedules, input or "{}", observed)


class ObservedEventClient(EventClient):
    """Events over gRPC. The runs that they trigger inherit their metadata."""

    def __init__(self, config: ClientConfig, enqueuer: Enqueuer) -> None:
        super().__init__(config)
        self._enqueuer = enqueuer

    @override
    async def aio_push(self, event_key: str, payload: dict[str, Any], *args: Any, **kwargs: Any) -> Event:
        """Send an event, inside `Interceptor.enqueue`, with the metadata that it wrote."""
        with self._event(event_key, args, kwargs) as (positional, keywords):
            return await super().aio_push(event_key, payload, *positional, **keywords)

    @override
    def push(self, event_key: str, payload: dict[str, Any], *args: Any, **kwargs: Any) -> Event:
        """Send an event, inside `Interceptor.enqueue`, with the metadata that it wrote."""
        with self._event(event_key, args, kwargs) as (positional, keywords):
            return super().push(event_key, payload, *positional, **keywords)

    @override
    async def aio_bulk_push(self, events: list[BulkPushEventWithMetadata], *args: Any, **kwargs: Any) -> list[Event]:
        """Send events in one `Interceptor.enqueue`, each with the metadata that it wrote."""
        with self._events(events) as observed:
            return await super().aio_bulk_push(observed, *args, **kwargs)

    @override
    def bulk_push(self, events: list[BulkPushEventWithMetadata], *args: Any, **kwargs: Any) -> list[Event]:
        """Send events in one `Interceptor.enqueue`, each with the metadata that it wrote."""
        with self._events(events) as observed:
            return super().bulk_push(observed, *args, **kwargs)

    @contextmanager
    def _event(
        self, key: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Generator[tuple[tuple[Any, ...], dict[str, Any]]]:
        options = args[0] if args else kwargs.get("options")
        given = (args[1] if len(args) > 1 else kwargs.get("additional_metadata")) or (
            options.additional_metadata if options is not None else {}
        )
        with self._enqueuer.single(key, given, operation="push_event", source="event") as item:
            metadata = dict(item.metadata)
            if len(args) > 1:
                yield (args[0], metadata, *args[2:]), kwargs
            else:
                yield args, {**kwargs, "additional_metadata": metadata}

    @contextmanager
    def _events(self, events: list[BulkPushEventWithMetadata]) -> Generator[list[BulkPushEventWithMetadata]]:
        items = [EnqueueItem(each.key, stamp(each.additional_metadata, source="event")) for each in events]
        with self._enqueuer.around(Enqueue("push_event", items, source="event")):
            yield [
                each.model_copy(update={"additional_metadata": dict(item.metadata)})
                for each, item in zip(events, items, strict=True)
            ]


class ObservedRunsClient(RunsClient):
    """Runs triggered over REST. The asynchronous method calls the synchronous one in a thread."""

    def __init__(self, client: Client, admin: AdminClient, enqueuer: Enqueuer) -> None:
        super().__init__(
            config=client.config,
            workflow_run_event_listener=client.listener,
            workflow_run_listener=client.workflow_listener,
            admin_client=admin,
        )
        self._enqueuer = enqueuer

    @override
    def create(
        self,
        workflow_name: str,
        input: dict[str, Any],
        additional_metadata: dict[str, Any] | None = None,
        priority: Any = None,
    ) -> Any:
        with self._enqueuer.single(workflow_name, additional_metadata or {}) as item:
            return super().create(workflow_name, input, dict(item.metadata), priority)


class ObservedScheduledClient(ScheduledClient):
    """Schedules over REST. The asynchronous method calls the synchronous one in a thread."""

    def __init__(self, config: ClientConfig, enqueuer: Enqueuer) -> None:
        super().__init__(config)
        self._enqueuer = enqueuer

    @override
    def create(
        self,
        workflow_name: str,
        trigger_at: datetime,
        input: dict[str, Any],
        additional_metadata: dict[str, Any],
    ) -> Any:
        with self._enqueuer.single(
            workflow_name, additional_metadata, operation="schedule", source="schedule", due_at=_utc(trigger_at)
        ) as item:
            return super().create(workflow_name, trigger_at, input, dict(item.metadata))


class SourcedCronClient(CronClient):
    """Crons. Every run of a cron has the same metadata, so it names the source and nothing of the moment."""

    @override
    def create(
        self,
        workflow_name: str,
        cron_name: str,
        expression: str,
        input: dict[str, Any],
        additional_metadata: dict[str, Any],
        priority: Any = None,
    ) -> Any:
        # The asynchronous method calls this one in a thread.
        metadata = {**blank(additional_metadata), KEY_SOURCE: "cron"}
        return super().create(workflow_name, cron_name, expression, input, metadata, priority)


def instrumented_client(config: ClientConfig, *, debug: bool, enqueuer: Enqueuer) -> tuple[Client, ObservedAdminClient]:
    """The SDK's internal client with every enqueue observed. Opens no connection."""
    client = Client(config=config, debug=debug)
    admin = ObservedAdminClient(client, enqueuer)
    client.admin = admin
    client.event = ObservedEventClient(config, enqueuer)
    client.runs = ObservedRunsClient(client, admin, enqueuer)
    client.scheduled = ObservedScheduledClient(config, enqueuer)
    client.cron = SourcedCronClient(config)
    watch_forks(client)
    return client, admin


def _utc(moment: datetime) -> datetime:
    """The SDK takes a datetime without a time zone as UTC."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
