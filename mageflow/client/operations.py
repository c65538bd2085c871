"""The operations of the client that use Redis: locks, signatures, chains, swarms and their lifecycle."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from mageflow.flows import Flows
from mageflow.locks import LockService, Resource
from mageflow.signatures import ChainSignature, Status, SwarmConfig, SwarmSignature, TaskSignature
from mageflow.store import AnySignature, FoundSignature, RedisPort
from mageflow.types import SignatureKind

__all__ = ["StateOperations"]


class StateOperations:
    """The part of `Mageflow` that uses Redis.

    Every coroutine method raises `RedisNotConfiguredError` if the client has no Redis, `StoreUnavailableError` if Redis
    cannot be reached, and `StoreError` if Redis refuses. After `StoreUnavailableError` it is unknown whether the change
    was made. All of them may be repeated.
    """

    _locks: LockService
    _flows: Flows
    _port: RedisPort

    @property
    def locks(self) -> LockService:
        """The lock service of this client: it locks several resources at once and reports who holds what."""
        return self._locks

    def resource(self, name: str) -> Resource:
        """Declare a resource that only one run may use at a time. No round trip to Redis.

        Lock it with ``async with resource.acquire(key=...)``, or around a whole task with ``@client.exclusive``. Locks
        are shared by every process of the same Hatchet namespace, Redis database and key prefix.

        Args:
            name: 1 to 128 letters, digits and ``_ . - /``. It becomes the ``lock`` label of metrics, so declare a
                handful of names and use keys for instances.

        Returns:
            The resource. Two resources with the same name are the same lock.

        Raises:
            ConfigurationError: The name has another form.
        """
        return self._locks.resource(name)

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
        """Store a task with values bound to it. The signature can run any number of times.

        Each run has its own callbacks; `TaskSignature.status` is the status of the last run. If a task is retried or
        replayed, the same call with the same content returns what the first attempt stored.

        One round trip to Redis, atomic. A task or callback given as a key, or as a loaded signature, costs one round
        trip more. The record lives for `Settings.signature_ttl_active_seconds` (a day) after its last progress, and for
        `Settings.signature_ttl_done_seconds` (an hour) after it ended.

        Telemetry: ``mageflow_signature_writes_total{kind="task",operation="create"}`` and
        ``mageflow_signature_size_bytes``.

        Args:
            task: A task or a workflow declared with this client, its name, or a signature to derive from. A derived
                signature keeps the bound values, identifiers and callbacks of the first; ``kwargs`` win over them.
            task_identifiers: JSON values of your own; the task reads them as ``signature.task_identifiers``.
            success_callbacks: Tasks, names, signatures, keys, chains or swarms that run with the result.
            error_callbacks: The same, to run with a `TaskError` when the last attempt failed, timed out or was
                cancelled.
            bind: Bound values whose names are parameters of this method (``task``, ``bind``).
            kwargs: Bound values: fields of the task's input. A value explicitly set in the message of a run wins.

        Returns:
            The stored signature. Run it with ``aio_run`` or ``run``, as a task.

        Raises:
            FlowDefinitionError: ``task`` or a callback cannot run alone (a workflow, a batch task, an unknown object),
                or the task's input has no such field.
            ConfigurationError: A value has no JSON form.
            SignatureNotFoundError: A given signature or key expired or was removed.
            SignatureInvalidError: A given signature or key holds a document that does not validate.
        """
        return await self._flows.creation.sign(
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
        """Store tasks that run one after another, each with the result of the one before.

        The result of a step arrives in the field of the next step's input that is annotated `ReturnValue`, else in
        ``mageflow_results``. A step whose last attempt fails ends the chain as ``failed``; a cancelled step ends it as
        ``cancelled``. A chain runs once: a second start changes nothing. Given signatures are copied into the chain;
        given chains and swarms are not copied, this chain starts them as steps. If a task is retried or replayed, the
        same call with the same content returns what the first attempt stored.

        One round trip to Redis for any number of tasks, atomic. A member given as a key, or as a loaded
        signature, costs one round trip more. The record lives for `Settings.chain_ttl_active_seconds` after its last
        progress, and for `Settings.chain_ttl_done_seconds` after it ended; unset, both are those of signatures.

        Telemetry: ``mageflow_signature_writes_total{kind="chain",operation="create"}`` and
        ``mageflow_signature_size_bytes``. ``name`` is the label ``flow_name`` of the flow metrics and the span
        attribute ``mageflow.flow.name``, so use few different names.

        Args:
            tasks: At least two of: tasks declared with this client, names of tasks, signatures, keys, chains, swarms.
            name: Name in telemetry; ``chain:<first task>`` by default.
            success: One callback or a list of them, to run with the result of the last step.
            error: One callback or a list of them, to run with a `TaskError`.
            bind: Bound values whose names are parameters of this method.
            kwargs: Values bound to every step. Values bound to a step win.

        Returns:
            The stored chain. Run it with ``aio_run`` (returns the last result) or start it with ``aio_run_no_wait``.

        Raises:
            FlowDefinitionError: There are fewer than two tasks, a task or callback cannot run alone, or a value is
                bound to a field that no step has.
            ConfigurationError: A value has no JSON form.
            SignatureNotFoundError: A given signature or key expired or was removed.
            SignatureInvalidError: A given signature or key holds a document that does not validate.
        """
        return await self._flows.creation.chain(tasks, name, success, error, bind=bind, **kwargs)

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
        """Store tasks that run side by side, at most ``config.max_concurrency`` at a time.

        A swarm ends when it is closed and every item has ended. With at least one success it is ``done``: the success
        callbacks receive the list of results in task order, with ``null`` where an item failed. If every item failed it
        is ``failed``; without items it is ``done`` with an empty list. It ends earlier, as ``failed``, at the failure
        that reaches ``config.stop_after_n_failures``. A swarm that is not closed does not end by itself.

        A swarm runs once: a second start changes nothing. Given signatures are copied into the swarm; it starts given
        chains and swarms as items. If a task is retried or replayed, the same call with the same content returns what
        the first attempt stored.

        One round trip to Redis for any number of tasks, atomic. A member given as a key, or as a loaded
        signature, costs one round trip more. The record lives for `Settings.swarm_ttl_active_seconds` after its last
        progress, and for `Settings.swarm_ttl_done_seconds` after it ended; unset, both are those of signatures.

        Telemetry: ``mageflow_signature_writes_total{kind="swarm",operation="create"}`` and
        ``mageflow_signature_size_bytes``. ``name`` is the label ``flow_name`` of the flow metrics and the span
        attribute ``mageflow.flow.name``, so use few different names.

        Args:
            tasks: Tasks, names, signatures, keys, chains or swarms. More can be added later with ``swarm.add``.
            name: Name in telemetry; ``swarm:<first task>`` by default.
            config: Limits and refilling; ``SwarmConfig()`` by default, 30 items at a time.
            success_callbacks: Tasks, names, signatures, keys, chains or swarms that run with the list of results.
            error_callbacks: The same, to run with a `TaskError`.
            closed: True if no more tasks will be added.
            bind: Bound values whose names are parameters of this method.
            kwargs: Values bound to every item. Values bound to an item win.

        Returns:
            The stored swarm. Run it with ``aio_run`` (returns the list of results) or start it with
            ``aio_run_no_wait``.

        Raises:
            FlowDefinitionError: A task or callback cannot run alone, or a value is bound to a field that no item has.
            SwarmFullError: There are more tasks than ``config.max_task_allowed``.
            ConfigurationError: A value has no JSON form.
            SignatureNotFoundError: A given signature or key expired or was removed.
            SignatureInvalidError: A given signature or key holds a document that does not validate.
        """
        return await self._flows.creation.swarm(
            tasks, name, config, success_callbacks, error_callbacks, closed=closed, bind=bind, **kwargs
        )

    async def load_signature(self, key: str) -> AnySignature:
        """Read a signature, a chain, a swarm or a member of one. One round trip to Redis; changes nothing.

        Telemetry: span ``load signature``; ``mageflow_signature_loads_total`` and
        ``mageflow_signature_load_duration_seconds``.

        Args:
            key: Key of a record, or of a member (``<key>#<index>``), as in ``signature.key``.

        Returns:
            A copy as of now, able to run and to change its lifecycle. It does not follow later changes: load it again.

        Raises:
            SignatureNotFoundError: The record expired, was removed, or never existed; also for a key of another
                namespace or key prefix.
            SignatureInvalidError: The stored document does not validate.
        """
        return await self._flows.load(key)

    async def rebind(
        self, signature: AnySignature | str, *, bind: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> AnySignature:
        """Change bound values of a signature, a flow or a member of one that has not begun.

        Values are replaced or added by name; the others stay. For a flow they are the values bound to every member. A
        signature has begun when its first run is admitted, a flow when it is started, a member when it is sent. Copies
        that other processes have loaded keep the old values, and so do flows that the signature was copied into.

        Three round trips to Redis. The change is atomic: a change by others in between is kept too. Starts the active
        TTL again. Telemetry: ``mageflow_signature_writes_total{operation="update"}``.

        Args:
            signature: A signature, chain, swarm or member, or its key.
            bind: Bound values whose names are parameters of this method.
            kwargs: Bound values.

        Returns:
            The signature with the new values.

        Raises:
            FlowDefinitionError: No input has such a field, or it is a member that is a nested flow.
            IllegalTransitionError: It has begun or ended.
            ConfigurationError: A value has no JSON form.
            SignatureNotFoundError: It expired or was removed.
            SignatureInvalidError: What is stored does not validate.
        """
        await self._flows.rebinding.rebind(_key(signature), {**(bind or {}), **kwargs})
        return await self._flows.load(_key(signature))

    def signatures(
        self,
        *,
        status: Status | str | Collection[Status | str] | None = None,
        task: object = None,
        flow: str | None = None,
        since: datetime | timedelta | None = None,
    ) -> AsyncIterator[FoundSignature]:
        """Find signatures, chains and swarms of this client's namespace: ``async for found in client.signatures()``.

        Reads an index and never scans keys. One round trip to Redis for each 500 records that have the status; on a
        Cluster at least one for each of 16 shards. Changes nothing. The order is not defined. Each record comes once;
        one whose status changes meanwhile may be missed, or come with the status before. Members of flows are not
        listed: load the flow. Telemetry: the metrics of Redis with the operation ``search``.

        Args:
            status: A status or several of them; all by default.
            task: Only signatures of this task: a task declared with this client, or its name.
            flow: Only chains and swarms of this name.
            since: Only what was created at this moment or later (with a time zone), or in the last so much time.

        Returns:
            An iterator of `FoundSignature`: key, kind, name, status, times and attempts. ``load_signature`` reads the
            rest.

        Raises:
            ConfigurationError: There is no such status, ``since`` has no time zone, or both ``task`` and ``flow`` are
                given.
        """
        return self._flows.search.find(status=status, task=task, flow=flow, since=since)

    async def signature_counts(self) -> dict[SignatureKind, dict[Status, int]]:
        """Count signatures, chains and swarms of this client's namespace by kind and status.

        One round trip to Redis; 16 on a Cluster. The numbers are those of the metric ``mageflow_signatures``.

        Returns:
            For example ``counts["chain"][Status.FAILED]``; 0 where there are none.
        """
        return await self._flows.search.counts()

    async def suspend(self, signature: AnySignature | str, *, by: str = "", why: str = "") -> Status:
        """Start nothing more of a signature or flow until `resume`.

        A body that runs goes on to its end and its result is stored; the next step, the next items and the callbacks
        wait. A run that arrives ends as cancelled in Hatchet (outcome ``skipped``); `resume` sends it again with the
        same input. Running nested flows are suspended too. A signature that became a member or a callback is suspended
        there too.

        One round trip to Redis, atomic, and one more for each nested flow. Starts the active TTL again. Repeating it
        changes nothing. Telemetry: ``mageflow_signature_writes_total{operation="update"}``.

        Args:
            signature: A signature, chain, swarm or member, or its key.
            by: Who suspends; kept in ``signature.history``.
            why: The reason; kept in ``signature.history``.

        Returns:
            ``Status.SUSPENDED``.

        Raises:
            SignatureNotFoundError: It expired or was removed.
            SignatureCopiedError: It became several members or callbacks, and its key says not which one is meant;
                nothing was changed. The error has their keys.
            IllegalTransitionError: It has ended, or it is a member that can never begin.
        """
        return await self._flows.lifecycle.suspend(_key(signature), by=by, why=why)

    async def resume(self, signature: AnySignature | str, *, by: str = "", why: str = "") -> Status:
        """Continue a suspended signature or flow.

        Runs that were held are sent again. Steps that finished while suspended now trigger their next steps and
        callbacks. Nothing that succeeded runs again, and a body that still runs is left alone.

        One round trip to Redis, atomic, one call to Hatchet if runs are sent, and one round trip more for each nested
        flow. Starts the active TTL again. Repeating it changes nothing. Telemetry:
        ``mageflow_signature_writes_total{operation="update"}``.

        Args:
            signature: A signature, chain, swarm or member, or its key.
            by: Who resumes; kept in ``signature.history``.
            why: The reason; kept in ``signature.history``.

        Returns:
            The status it has now: ``Status.ACTIVE``, ``Status.PENDING`` if it had not started, or the status it ended
            with if its last member ended while it was suspended.

        Raises:
            SignatureNotFoundError: It expired or was removed.
            SignatureCopiedError: It became several members or callbacks, and its key says not which one is meant;
                nothing was changed. The error has their keys.
            IllegalTransitionError: It has ended, or it is a member that can never begin.
        """
        return await self._flows.lifecycle.resume(_key(signature), by=by, why=why)

    async def interrupt(self, signature: AnySignature | str, *, by: str = "", why: str = "") -> Status:
        """End a signature or flow now.

        Its runs are cancelled in Hatchet, waiting members are dropped, and the error callbacks run with a `TaskError`
        of type ``TaskInterrupted`` and ``why`` as the message. A flow that never started ends without callbacks. A
        result that arrives later changes nothing. Interrupting a step or an item cancels that member; its chain then
        ends as cancelled.

        One round trip to Redis, atomic, one call to Hatchet, and one round trip more for each nested flow. The done TTL
        applies from then on. Repeating it changes nothing. Telemetry:
        ``mageflow_signature_writes_total{operation="update"}``; for a flow ``mageflow_flows_finished_total``.

        Args:
            signature: A signature, chain, swarm or member, or its key.
            by: Who interrupts; kept in ``signature.history``.
            why: The reason; kept in ``signature.history`` and in the error.

        Returns:
            ``Status.INTERRUPTED``.

        Raises:
            SignatureNotFoundError: It expired or was removed.
            SignatureCopiedError: It became several members or callbacks, and its key says not which one is meant;
                nothing was changed. The error has their keys.
            IllegalTransitionError: It has ended in another way, or it is a member that has not begun.
        """
        return await self._flows.lifecycle.interrupt(_key(signature), by=by, why=why)

    async def remove(self, signature: AnySignature | str) -> bool:
        """Delete a signature or flow with everything stored for it, and cancel its runs. No callback runs.

        Nested flows are removed too. One round trip to Redis for each record, each atomic, and one call to Hatchet for
        each record with live runs. Telemetry: ``mageflow_signature_writes_total{operation="delete"}``.

        Args:
            signature: A signature, chain or swarm, or its key.

        Returns:
            False if nothing was stored under the key.

        Raises:
            FlowDefinitionError: It is a member of a flow: remove the flow.
            DispatchError: Hatchet did not cancel the runs. Everything stored is deleted all the same.
        """
        return await self._flows.lifecycle.remove(_key(signature))

    async def aclose(self) -> None:
        """Release the locks of this process and close the connections to Redis made for the running event loop.

        A worker does this when it stops. Call it in a program that uses the client in more than one event loop, before
        each loop ends. A Redis client that you gave to `Mageflow` stays open, and this client can be used again.
        """
        await self._flows.drain()
        await self._locks.aclose()
        await self._port.aclose()

    asign = sign

    async def achain(
        self,
        tasks: Sequence[object],
        name: str | None = None,
        error: object = (),
        success: object = (),
        *,
        bind: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> ChainSignature:
        """Store a chain, with the order of arguments of mageflow 0.3: ``error`` before ``success``.

        Everything else is as in `chain`.

        Args:
            tasks: At least two of: tasks declared with this client, names of tasks, signatures, keys, chains, swarms.
            name: Name in telemetry; ``chain:<first task>`` by default.
            error: One callback or a list of them, to run with a `TaskError`.
            success: One callback or a list of them, to run with the result of the last step.
            bind: Bound values whose names are parameters of this method.
            kwargs: Values bound to every step. Values bound to a step win.

        Returns:
            The stored chain.

        Raises:
            FlowDefinitionError: There are fewer than two tasks, a task or callback cannot run alone, or a value is
                bound to a field that no step has.
            ConfigurationError: A value has no JSON form.
            SignatureNotFoundError: A given signature or key expired or was removed.
            SignatureInvalidError: A given signature or key holds a document that does not validate.
        """
        return await self.chain(tasks, name, success, error, bind=bind, **kwargs)

    async def aswarm(
        self,
        tasks: Sequence[object] = (),
        task_name: str | None = None,
        *,
        is_swarm_closed: bool = False,
        kwargs: Mapping[str, Any] | None = None,
        bind: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> SwarmSignature:
        """Store a swarm, with the names of arguments of mageflow 0.3.

        Everything else is as in `swarm`.

        Args:
            tasks: Tasks, names, signatures, keys, chains or swarms.
            task_name: The ``name`` of `swarm`.
            is_swarm_closed: The ``closed`` of `swarm`.
            kwargs: Values bound to every item.
            bind: The same, as in `swarm`; these win.
            options: ``config``, ``success_callbacks``, ``error_callbacks``, and the names of `swarm` for the others.
                What is none of them is bound to every item.

        Returns:
            The stored swarm. ``aio_run_in_swarm`` and ``close_swarm`` start it.

        Raises:
            FlowDefinitionError: A task or callback cannot run alone, or a value is bound to a field that no item has.
            SwarmFullError: There are more tasks than ``config.max_task_allowed``.
            ConfigurationError: A value has no JSON form.
            SignatureNotFoundError: A given signature or key expired or was removed.
            SignatureInvalidError: A given signature or key holds a document that does not validate.
        """
        name, closed = options.pop("name", task_name), options.pop("closed", is_swarm_closed)
        return await self.swarm(tasks, name, closed=closed, bind={**(kwargs or {}), **(bind or {})}, **options)


def _key(signature: AnySignature | str) -> str:
    return signature if isinstance(signature, str) else signature.key
