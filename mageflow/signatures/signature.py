"""What every signature has: its state, and the methods that run it and change its lifecycle. Pure, no I/O.

A signature is a frozen copy of what is stored, as of one moment. A run or a lifecycle action (``suspend``, ``resume``,
``interrupt``, ``remove``) changes what is stored, never an assignment.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PrivateAttr

from mageflow.errors import ConfigurationError
from mageflow.signatures.message import FailureRecord
from mageflow.signatures.ports import SignatureLifecycle
from mageflow.signatures.runs import HistoryEntry, LastRun
from mageflow.signatures.states import ENDED, Status

__all__ = ["Signature", "SignatureRunner", "unbound"]


class SignatureRunner(Protocol):
    """Runs signatures of every kind. Implemented by ``mageflow.hatchet``.

    ``input`` is the message as the user gave it (a model, a dataclass, a mapping, None). ``options`` are the keyword
    arguments of the SDK's ``Task.run``. The result of a chain or swarm is the result of the flow.
    """

    def run(self, signature: "Signature", input: object, options: Mapping[str, Any]) -> Any:
        """Run and wait for the result; blocks the thread."""
        ...

    async def aio_run(self, signature: "Signature", input: object, options: Mapping[str, Any]) -> Any:
        """Run and wait for the result."""
        ...

    def run_no_wait(self, signature: "Signature", input: object, options: Mapping[str, Any]) -> Any:
        """Run and return a reference; blocks the thread for the call."""
        ...

    async def aio_run_no_wait(
        self,
        signature: "Signature",
        input: object,
        options: Mapping[str, Any],
    ) -> Any:
        """Run and return a reference."""
        ...

    def schedule(self, signature: "Signature", run_at: object, input: object, options: Mapping[str, Any]) -> Any:
        """Run at a time; blocks the thread for the call."""
        ...

    async def aio_schedule(
        self,
        signature: "Signature",
        run_at: object,
        input: object,
        options: Mapping[str, Any],
    ) -> Any:
        """Run at a time."""
        ...

    def unschedule(self, signature: "Signature") -> list[datetime]:
        """Take back its starts at a time; blocks the thread for the call."""
        ...

    async def aio_unschedule(self, signature: "Signature") -> list[datetime]:
        """Take back its starts at a time."""
        ...


class Signature(BaseModel):
    """The common part of every signature; subclasses add ``kind``: ``task``, ``chain`` or ``swarm``.

    Attributes:
        key: Key of the record in Redis, for ``client.load_signature``. Empty for the signature of a plain run, which is
            not stored.
        kwargs: Values bound when it was created.
        success_callbacks: Keys of the success callbacks; each can be loaded.
        error_callbacks: Keys of the error callbacks; each can be loaded.
        status: Status when this copy was read.
        created_at: When it was created, by the clock of Redis, in UTC.
        updated_at: When anything of it last changed, by the clock of Redis, in UTC.
        attempts: Number of attempts admitted so far.
        last_run: The run that was last admitted or settled.
        last_error: The error of the last failed attempt.
        starts_at: When a flow starts that is scheduled and has not begun, in UTC; None for a task signature.
        traceparent: Context of the span its runs are traced under, in W3C form.
        history: The last 32 changes of status, oldest first.
        version: Version of the stored document.
    """

    model_config = ConfigDict(frozen=True)

    key: str = ""
    kwargs: dict[str, Any] = Field(default_factory=dict)
    success_callbacks: tuple[str, ...] = ()
    error_callbacks: tuple[str, ...] = ()
    status: Status = Status.PENDING
    created_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    updated_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    attempts: int = 0
    last_run: LastRun | None = None
    last_error: FailureRecord | None = None
    starts_at: AwareDatetime | None = None
    traceparent: str = ""
    history: tuple[HistoryEntry, ...] = ()
    version: int = 1

    _runner: SignatureRunner | None = PrivateAttr(default=None)
    _lifecycle: SignatureLifecycle | None = PrivateAttr(default=None)

    @property
    def is_stored(self) -> bool:
        """True if it is stored in Redis; False for the signature of a plain run."""
        return bool(self.key)

    @property
    def has_ended(self) -> bool:
        """True if nothing of it was running or waiting to run when this copy was read."""
        return self.status in ENDED

    def bind(self, runner: SignatureRunner | None, lifecycle: SignatureLifecycle | None) -> Self:
        """The same signature, with the services behind its methods."""
        self._runner, self._lifecycle = runner, lifecycle
        return self

    def run(self, input: object = None, **options: Any) -> Any:
        """Run it and wait for the result. Blocks the thread.

        The input is the message as the caller's object holds it. Bound values fill the fields that the caller did not
        set. Objects merge key by key, lists are replaced.

        A task signature makes one call to Hatchet, and its run costs two round trips to Redis in the worker. A chain
        or swarm makes one round trip and one call to Hatchet to start, and then polls Redis.

        Telemetry: for a task a span ``send <task>`` and ``mageflow_tasks_enqueued_total{source="signature"}``; for a
        flow a span ``start <name>`` and ``mageflow_flows_started_total``.

        Args:
            input: The message: a pydantic model, a dataclass, a mapping or None.
            options: For a task signature the keyword arguments of the SDK's ``Task.run``
                (``additional_metadata``, ``priority`` and the rest). Its callbacks get the same metadata and priority.
                For a chain or swarm ``additional_metadata`` and ``priority``: every step, item, callback and nested
                flow gets them.

        Returns:
            The result of the task; of the last step of a chain; the list of results of a swarm.

        Raises:
            ConfigurationError: This copy was not made by a client, it is a flow and this is an event loop, or an option
                is unknown.
            pydantic.ValidationError: The input does not fit the input model of a task declared in this process.
            FlowFailedError: The chain or swarm did not succeed.
            SignatureNotFoundError: The chain or swarm expired or was removed.
            IllegalTransitionError: The chain or swarm was interrupted before it was started.
            StoreUnavailableError: Redis is unreachable, or refuses for now; while this waits for the result, for over
                60 s. Not for a task signature.
        """
        return self._bound_runner("run").run(self, input, options)

    async def aio_run(self, input: object = None, **options: Any) -> Any:
        """Run it and wait for the result, without blocking the event loop.

        Costs and telemetry are those of `run`.

        Args:
            input: The message: a pydantic model, a dataclass, a mapping or None.
            options: For a task signature the keyword arguments of the SDK's ``Task.aio_run``; for a chain or swarm
                ``additional_metadata`` and ``priority``, as for `run`.

        Returns:
            The result of the task; of the last step of a chain; the list of results of a swarm.

        Raises:
            ConfigurationError: This copy was not made by a client, or an option is unknown.
            pydantic.ValidationError: The input does not fit the input model of a task declared in this process.
            FlowFailedError: The chain or swarm did not succeed.
            SignatureNotFoundError: The chain or swarm expired or was removed.
            IllegalTransitionError: The chain or swarm was interrupted before it was started.
            StoreUnavailableError: Redis is unreachable, or refuses for now; while this waits for the result, for over
                60 s. Not for a task signature.
        """
        return await self._bound_runner("aio_run").aio_run(self, input, options)

    def run_no_wait(self, input: object = None, **options: Any) -> Any:
        """Run it without waiting for the result. Blocks the thread for the call to Hatchet.

        One call to Hatchet; for a chain or swarm also one round trip to Redis. Telemetry is that of `run`.

        Args:
            input: The message: a pydantic model, a dataclass, a mapping or None.
            options: For a task signature the keyword arguments of the SDK's ``Task.run``; for a chain or swarm
                ``additional_metadata`` and ``priority``, as for `run`.

        Returns:
            The SDK's reference to the run for a task signature; this signature for a chain or swarm.

        Raises:
            ConfigurationError: This copy was not made by a client, it is a flow and this is an event loop, or an option
                is unknown.
            pydantic.ValidationError: The input does not fit the input model of a task declared in this process.
            SignatureNotFoundError: The chain or swarm expired or was removed.
            IllegalTransitionError: The chain or swarm was interrupted before it was started.
            StoreUnavailableError: Redis is unreachable, or refuses for now. Not for a task signature.
        """
        return self._bound_runner("run_no_wait").run_no_wait(self, input, options)

    async def aio_run_no_wait(self, input: object = None, **options: Any) -> Any:
        """Run it without waiting for the result, and without blocking the event loop.

        One call to Hatchet; for a chain or swarm also one round trip to Redis. Telemetry is that of `run`.

        Args:
            input: The message: a pydantic model, a dataclass, a mapping or None.
            options: For a task signature the keyword arguments of the SDK's ``Task.aio_run``; for a chain or swarm
                ``additional_metadata`` and ``priority``, as for `run`.

        Returns:
            The SDK's reference to the run for a task signature; this signature for a chain or swarm.

        Raises:
            ConfigurationError: This copy was not made by a client, or an option is unknown.
            pydantic.ValidationError: The input does not fit the input model of a task declared in this process.
            SignatureNotFoundError: The chain or swarm expired or was removed.
            IllegalTransitionError: The chain or swarm was interrupted before it was started.
            StoreUnavailableError: Redis is unreachable, or refuses for now. Not for a task signature.
        """
        return await self._bound_runner("aio_run_no_wait").aio_run_no_wait(self, input, options)

    def schedule(self, run_at: datetime, input: object = None, **options: Any) -> Any:
        """Run it at a time. Blocks the thread for the call.

        Args:
            run_at: When; without a time zone it is UTC.
            input: The message: a pydantic model, a dataclass, a mapping or None.
            options: The options of `aio_schedule`.

        Returns:
            What `aio_schedule` returns.

        Raises:
            ConfigurationError: This copy was not made by a client, this is an event loop, ``run_at`` is no datetime, or
                an option is unknown.
            pydantic.ValidationError: The input does not fit the input model of a task declared in this process.
            SignatureNotFoundError: It, or a flow that it needs, expired or was removed.
            IllegalTransitionError: The chain or swarm has been started, or has ended.
            StoreUnavailableError: Redis is unreachable, or refuses for now.
        """
        return self._bound_runner("schedule").schedule(self, run_at, input, options)

    async def aio_schedule(self, run_at: datetime, input: object = None, **options: Any) -> Any:
        """Run it at a time.

        Hatchet keeps the time of a task signature. Redis keeps that of a chain or swarm, and the first worker that sees
        that it is time starts it, up to 3 seconds later with the default ``Settings.reconcile_interval_seconds``, or up
        to 6 seconds where workers are idle. Scheduling a flow again replaces time, message and options until it has
        begun. `aio_unschedule` takes it back.

        The record, and the chains and swarms that it needs, live for their active TTL after the time. One round trip
        to Redis, two for a signature with callbacks that are flows or a flow with nested flows, and two more for each
        of these; for a task also one call to Hatchet.

        Telemetry: ``mageflow_signature_writes_total{operation="update"}``; for a task a span ``schedule <task>`` and
        ``mageflow_tasks_enqueued_total{source="signature"}``. A flow reports its start when it starts.

        Args:
            run_at: When; without a time zone it is UTC. A flow whose time has passed starts at once.
            input: The message: a pydantic model, a dataclass, a mapping or None.
            options: For a task signature the keyword arguments of the SDK's ``Task.aio_schedule``: its callbacks get
                the same metadata and priority. For a chain or swarm ``additional_metadata`` and ``priority``, as for
                `run`.

        Returns:
            The SDK's ``WorkflowVersion`` for a task signature; this signature for a chain or swarm.

        Raises:
            ConfigurationError: This copy was not made by a client, ``run_at`` is no datetime, or an option is unknown.
            pydantic.ValidationError: The input does not fit the input model of a task declared in this process.
            SignatureNotFoundError: It, or a flow that it needs, expired or was removed.
            IllegalTransitionError: The chain or swarm has been started, or has ended.
            StoreUnavailableError: Redis is unreachable, or refuses for now.
        """
        return await self._bound_runner("aio_schedule").aio_schedule(self, run_at, input, options)

    def unschedule(self) -> list[datetime]:
        """Take back its starts at a time. Blocks the thread; returns and raises as `aio_unschedule` does."""
        return self._bound_runner("unschedule").unschedule(self)

    async def aio_unschedule(self) -> list[datetime]:
        """Take back every start at a time that has not begun. It stays stored and can be run or scheduled again.

        For a task signature its scheduled runs in Hatchet are deleted: one call lists up to 500 of them, one deletes
        them. A run that begins in between goes on. For a chain or swarm one round trip to Redis, atomic, and
        ``mageflow_signature_writes_total{operation="update"}``.

        Returns:
            When they would have started, the earliest first, in UTC; empty if there was none.

        Raises:
            ConfigurationError: This copy was not made by a client.
            SignatureNotFoundError: The chain or swarm expired or was removed.
            DispatchError: Hatchet does not answer.
            StoreUnavailableError: Redis is unreachable, or refuses for now.
        """
        return await self._bound_runner("aio_unschedule").aio_unschedule(self)

    async def suspend(self, *, by: str = "", why: str = "") -> Status:
        """Start nothing more of it until `resume`.

        A task function that is running goes on to its end and its result is stored, but the next step, the next items
        and the callbacks wait. A run that arrives ends as cancelled in Hatchet (outcome ``skipped``), and `resume`
        sends it again. Running nested flows are suspended too. Suspending it again changes nothing.

        One round trip to Redis, atomic, and one more for each nested flow. Refreshes the active TTL.

        Args:
            by: Who suspends; kept in the history.
            why: The reason; kept in the history.

        Returns:
            ``Status.SUSPENDED``.

        Raises:
            ConfigurationError: This copy was not made by a client, or is not stored.
            IllegalTransitionError: It has ended.
            SignatureNotFoundError: It expired or was removed.
            StoreUnavailableError: Redis is unreachable, or refuses for now.
        """
        return await self._bound_lifecycle("suspend").suspend(self.key, by=by, why=why)

    async def resume(self, *, by: str = "", why: str = "") -> Status:
        """Continue from where `suspend` stopped it.

        Held runs are sent again. Steps that finished while suspended now trigger their next steps and callbacks.
        Nothing that succeeded runs again. Resuming it again changes nothing.

        One round trip to Redis, atomic, and one call to Hatchet if runs are sent; one round trip more for each nested
        flow. Refreshes the active TTL.

        Args:
            by: Who resumes; kept in the history.
            why: The reason; kept in the history.

        Returns:
            The status it has now.

        Raises:
            ConfigurationError: This copy was not made by a client, or is not stored.
            IllegalTransitionError: It has ended.
            SignatureNotFoundError: It expired or was removed.
            StoreUnavailableError: Redis is unreachable, or refuses for now.
        """
        return await self._bound_lifecycle("resume").resume(self.key, by=by, why=why)

    async def interrupt(self, *, by: str = "", why: str = "") -> Status:
        """End it now.

        Its runs are cancelled in Hatchet, waiting members are dropped, and its error callbacks run with a `TaskError`
        of type ``TaskInterrupted``. A flow that never started ends without callbacks. Interrupting it again changes
        nothing.

        One round trip to Redis, atomic, and one call to Hatchet; one round trip more for each nested flow. The done TTL
        applies from then on.

        Args:
            by: Who interrupts; kept in the history.
            why: The reason; kept in the history and in the error.

        Returns:
            ``Status.INTERRUPTED``.

        Raises:
            ConfigurationError: This copy was not made by a client, or is not stored.
            IllegalTransitionError: It has ended in another way.
            SignatureNotFoundError: It expired or was removed.
            StoreUnavailableError: Redis is unreachable, or refuses for now.
        """
        return await self._bound_lifecycle("interrupt").interrupt(self.key, by=by, why=why)

    async def remove(self) -> bool:
        """Delete it with everything stored for it, and cancel its runs. No callback runs.

        One round trip to Redis for it and for each running nested flow, each atomic; then one call to Hatchet for each
        record with live runs.

        Returns:
            False if nothing was stored.

        Raises:
            ConfigurationError: This copy was not made by a client, or is not stored.
            FlowDefinitionError: It is a member of a flow.
            DispatchError: Hatchet did not cancel the runs. Everything stored is deleted all the same.
            StoreUnavailableError: Redis is unreachable, or refuses for now.
        """
        return await self._bound_lifecycle("remove").remove(self.key)

    def _bound_runner(self, operation: str) -> SignatureRunner:
        if self._runner is None:
            raise unbound(operation)
        return self._runner

    def _bound_lifecycle(self, operation: str) -> SignatureLifecycle:
        if self._lifecycle is None or not self.key:
            raise unbound(operation)
        return self._lifecycle


def unbound(operation: str) -> ConfigurationError:
    """The error of a method that needs a client, on a signature that has none."""
    return ConfigurationError(
        f"{operation} needs a client, and this signature is only a value: get it from client.sign or "
        "client.load_signature, or as the parameter of a task that is decorated with @client.with_signature and was "
        "started from a stored signature"
    )
