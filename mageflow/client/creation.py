"""The operations of the client that make stored things: locks, signatures, chains and swarms."""

from collections.abc import Mapping, Sequence
from typing import Any

from mageflow import locks as locking
from mageflow.client.connected import ConnectedClient
from mageflow.signatures import ChainSignature, SwarmConfig, SwarmSignature, TaskSignature

__all__ = ["CreatingClient"]


class CreatingClient(ConnectedClient):
    """The part of `Mageflow` that stores signatures and flows, and declares locks.

    Every coroutine method raises `RedisNotConfiguredError` if the client has no Redis, `StoreUnavailableError` if Redis
    cannot be reached, and `StoreError` if Redis refuses. After `StoreUnavailableError` it is unknown whether the change
    was made. All of them may be repeated.
    """

    @property
    def locks(self) -> "locking.LockService":
        """The lock service of this client: it locks several resources at once and reports who holds what."""
        return self._locks

    def resource(self, name: str) -> "locking.Resource":
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
            FlowDefinitionError: ``task`` or a callback cannot run alone (a batch task, an unknown object), or the
                task's input has no such field.
            ConfigurationError: A value has no JSON form.
            SignatureNotFoundError: A given signature or key expired or was removed.
            SignatureInvalidError: A given signature or key holds a document that does not validate.
            RedisNotConfiguredError: The client has no Redis.
            StoreUnavailableError: Redis is unreachable, or refuses for now.
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
            RedisNotConfiguredError: The client has no Redis.
            StoreUnavailableError: Redis is unreachable, or refuses for now.
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
            RedisNotConfiguredError: The client has no Redis.
            StoreUnavailableError: Redis is unreachable, or refuses for now.
        """
        return await self._flows.creation.swarm(
            tasks, name, config, success_callbacks, error_callbacks, closed=closed, bind=bind, **kwargs
        )

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

        It calls `chain`: one round trip to Redis for any number of tasks, atomic, the same keys, TTLs and telemetry
        (``mageflow_signature_writes_total{kind="chain",operation="create"}``).

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
            RedisNotConfiguredError: The client has no Redis.
            StoreUnavailableError: Redis is unreachable, or refuses for now.
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

        It calls `swarm`: one round trip to Redis for any number of tasks, atomic, the same keys, TTLs and telemetry
        (``mageflow_signature_writes_total{kind="swarm",operation="create"}``).

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
            RedisNotConfiguredError: The client has no Redis.
            StoreUnavailableError: Redis is unreachable, or refuses for now.
        """
        name, closed = options.pop("name", task_name), options.pop("closed", is_swarm_closed)
        return await self.swarm(tasks, name, closed=closed, bind={**(kwargs or {}), **(bind or {})}, **options)
