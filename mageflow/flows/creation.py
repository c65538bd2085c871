"""Creates signatures, chains and swarms: ``client.sign``, ``client.chain`` and ``client.swarm``.

Creating anything from task objects, names, flows, or signatures made in this process is one round trip to Redis, at any
size. A member given as a key, or as a signature that was loaded, costs one round trip more.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from mageflow.errors import FlowDefinitionError, SwarmFullError
from mageflow.flows.identity import new_identity
from mageflow.flows.members import MemberResolver, MemberSpec, callback_places, copies_of, documents_of, flow_document
from mageflow.signatures import (
    ChainSignature,
    FlowDefinition,
    FlowMember,
    Signature,
    SignatureLifecycle,
    SignatureRunner,
    Status,
    SwarmConfig,
    SwarmOperations,
    SwarmSignature,
    TaskDefinition,
    TaskSignature,
    as_json_object,
    defined,
)
from mageflow.store import CallbackKind, MemberPath, RecordKeys, Store, chain_header, swarm_header, task_header

__all__ = ["Creation", "SignatureBinder"]

_S = TypeVar("_S", bound=Signature)


class SignatureBinder:
    """Gives a signature the services behind its methods (``run``, ``suspend``, ``add`` and the rest).

    Args:
        runner: Runs signatures; may be set later, before the first signature is bound.
        lifecycle: Carries out lifecycle actions.
        swarms: Adds items to swarms and closes them.
    """

    def __init__(self, runner: SignatureRunner | None, lifecycle: SignatureLifecycle, swarms: SwarmOperations) -> None:
        self.runner = runner
        self._lifecycle = lifecycle
        self._swarms = swarms

    def bind(self, signature: _S) -> _S:
        """The same signature, with its services."""
        signature.bind(self.runner, self._lifecycle)
        if isinstance(signature, SwarmSignature):
            signature.bind_swarm(self._swarms)
        return signature


class Creation:
    """Creates signatures, chains and swarms, and stores them.

    Args:
        store: Keeps them.
        members: Resolves the tasks and callbacks a user gives.
        binder: Gives what is created its services.
    """

    def __init__(self, store: Store, members: MemberResolver, binder: SignatureBinder) -> None:
        self._store = store
        self._members = members
        self._binder = binder

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
        """Store a task with values bound to it.

        The signature can run any number of times. Each run has its own callbacks, and `Signature.status` is the status
        of the last run. In a retried or replayed attempt of a task the same call returns what the first attempt
        stored, as long as the content is the same.

        One round trip to Redis, atomic. A member given as a key, or as a loaded signature, costs one round trip more.
        The record lives for ``Settings.signature_ttl_active_seconds`` after its last progress, and for
        ``signature_ttl_done_seconds`` after it ended.

        Telemetry: ``mageflow_signature_writes_total{kind="task",operation="create"}`` and
        ``mageflow_signature_size_bytes``.

        Args:
            task: A task or a workflow declared with this client, its name, or a signature to derive from. A derived
                signature keeps the bound values, identifiers and callbacks of the first; ``kwargs`` win over them.
            task_identifiers: JSON values to recognise the signature by; the task finds them in
                ``signature.task_identifiers``.
            success_callbacks: Tasks, names, signatures, keys or flows to run with the result.
            error_callbacks: Tasks, names, signatures, keys or flows to run with a `TaskError` when the last attempt
                failed, timed out or was cancelled.
            bind: Bound values whose names are parameters of this method.
            kwargs: Bound values: fields of the task's input.

        Returns:
            The stored signature, able to run.

        Raises:
            FlowDefinitionError: ``task`` or a callback cannot be run, or the input of the task has no such field.
            ConfigurationError: A value has no JSON form.
            SignatureNotFoundError: A given signature or key expired or was removed.
            SignatureInvalidError: A given signature or key holds a document that does not validate.
        """
        base = await self._members.resolve_member(task)
        if isinstance(base.definition, FlowMember):
            raise FlowDefinitionError("a chain or swarm is a signature already: use it as it is")
        self._members.check_no_callbacks(kwargs, success="success_callbacks", error="error_callbacks")
        bound = {**base.definition.kwargs, **(bind or {}), **kwargs}
        identifiers = {**base.definition.identifiers, **(task_identifiers or {})}
        on_success = await self._members.resolve_members(success_callbacks, "success_callbacks")
        on_error = await self._members.resolve_members(error_callbacks, "error_callbacks")
        self._check_callbacks(on_success, on_error)
        member = MemberSpec(
            self._members.task_definition(base.definition.task, bound, identifiers),
            base.success + on_success,
            base.error + on_error,
        )
        documents = list(documents_of(member, MemberPath()))
        keys = self._store.keys.new("task", new_identity("task", *documents))
        copies = copies_of(callback_places(member.success, member.error))
        _, status = await self._store.create(keys, documents, task_header(member.name), copies=copies)
        assert isinstance(member.definition, TaskDefinition)  # noqa: S101 - narrows the type
        signature = TaskSignature(
            key=keys.record,
            task_name=member.definition.task,
            task_identifiers=member.definition.identifiers,
            kwargs=member.definition.kwargs,
            success_callbacks=_callback_keys(keys, "success", member.success),
            error_callbacks=_callback_keys(keys, "error", member.error),
            status=status,
        )
        return self._binder.bind(signature.created_from(member))

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

        The result of a step arrives in the field of the next input that is annotated `ReturnValue`, else in
        ``mageflow_results``. A step whose last attempt fails ends the chain as ``failed``; a cancelled step ends it as
        ``cancelled``. A chain runs once: another start of the same chain changes nothing. In a retried or replayed
        attempt of a task the same call returns what the first attempt stored.

        Given signatures are copied into the chain with their bound values and callbacks. Given chains and swarms are
        not copied: they belong to this chain, which starts them.

        One round trip to Redis, atomic, for any number of tasks. A member given as a key, or as a loaded
        signature, costs one round trip more. The record lives for ``Settings.chain_ttl_active_seconds`` after its last
        progress, and for ``chain_ttl_done_seconds`` after it ended.

        Telemetry: ``mageflow_signature_writes_total{kind="chain",operation="create"}`` and
        ``mageflow_signature_size_bytes``. ``name`` is the label ``flow_name`` and the span attribute
        ``mageflow.flow.name`` from the start on, so it must have few values.

        Args:
            tasks: At least two tasks, names, signatures, keys, chains or swarms.
            name: Name in telemetry; ``chain:<first task>`` by default.
            success: One callback or a list of them, to run with the result of the last step.
            error: One callback or a list of them, to run with a `TaskError`.
            bind: Bound values whose names are parameters of this method.
            kwargs: Values bound to every step; values bound to a step win.

        Returns:
            The stored chain, able to run.

        Raises:
            FlowDefinitionError: There are fewer than two tasks, a task or callback cannot be run, or a value is
                bound to a field that no step has.
            ConfigurationError: A value has no JSON form.
            SignatureNotFoundError: A given signature or key expired or was removed.
            SignatureInvalidError: A given signature or key holds a document that does not validate.
        """
        members = await self._members.resolve_members(tasks, "tasks")
        if len(members) < 2:  # noqa: PLR2004 - a chain links at least two
            raise FlowDefinitionError(
                f"a chain needs at least two tasks, this one has {len(members)}: sign a single task"
            )
        self._members.check_no_callbacks(kwargs, success="success", error="error")
        definition = defined(
            FlowDefinition,
            kind="chain",
            name=name or _default_name("chain", members),
            kwargs=as_json_object({**(bind or {}), **kwargs}),
        )
        self._members.check_shared_values(definition.name, members, definition.kwargs)
        on_success = await self._members.resolve_members(_listed(success), "success")
        on_error = await self._members.resolve_members(_listed(error), "error")
        self._members.check_receives(members[1:], "result")
        self._check_callbacks(on_success, on_error)
        header = chain_header(definition.name, len(members))
        keys, status = await self._create_flow(definition, members, on_success, on_error, header)
        chain = ChainSignature(
            key=keys.record,
            name=definition.name,
            kwargs=definition.kwargs,
            steps=tuple(MemberPath(index).key(keys.record) for index in range(len(members))),
            success_callbacks=_callback_keys(keys, "success", on_success),
            error_callbacks=_callback_keys(keys, "error", on_error),
            status=status,
        )
        return self._binder.bind(chain)

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

        A swarm ends when it is closed and every item has ended:

        - at least one item succeeded: ``done``. The success callbacks receive the list of results in task order, with
          ``null`` where an item failed;
        - every item failed: ``failed``. The error callbacks receive the last error;
        - it has no items: ``done``, with an empty list.

        It ends earlier, as ``failed``, at the failure that reaches ``config.stop_after_n_failures``: running items are
        cancelled and waiting items are dropped. A swarm that is not closed does not end by itself.

        A swarm runs once: another start of the same swarm changes nothing. In a retried or replayed attempt of a task
        the same call returns what the first attempt stored. Given signatures are copied into the swarm; given chains
        and swarms belong to it.

        One round trip to Redis, atomic, for any number of tasks. A member given as a key, or as a loaded
        signature, costs one round trip more. The record lives for ``Settings.swarm_ttl_active_seconds`` after its last
        progress, and for ``swarm_ttl_done_seconds`` after it ended.

        Telemetry: ``mageflow_signature_writes_total{kind="swarm",operation="create"}`` and
        ``mageflow_signature_size_bytes``. ``name`` is the label ``flow_name`` and the span attribute
        ``mageflow.flow.name`` from the start on, so it must have few values.

        Args:
            tasks: Tasks, names, signatures, keys, chains or swarms; more can be added later.
            name: Name in telemetry; ``swarm:<first task>`` by default.
            config: Limits and refilling; ``SwarmConfig()`` by default.
            success_callbacks: Tasks, names, signatures, keys or flows to run with the list of results.
            error_callbacks: Tasks, names, signatures, keys or flows to run with a `TaskError`.
            closed: True if no more tasks will be added.
            bind: Bound values whose names are parameters of this method.
            kwargs: Values bound to every item; values bound to an item win.

        Returns:
            The stored swarm, able to run and to take tasks.

        Raises:
            FlowDefinitionError: A task or callback cannot be run, or a value is bound to a field that no item has.
            SwarmFullError: There are more tasks than ``config.max_task_allowed``.
            ConfigurationError: A value has no JSON form.
            SignatureNotFoundError: A given signature or key expired or was removed.
            SignatureInvalidError: A given signature or key holds a document that does not validate.
        """
        config = config or SwarmConfig()
        members = await self._members.resolve_members(tasks, "tasks")
        self._members.check_no_callbacks(kwargs, success="success_callbacks", error="error_callbacks")
        definition = defined(
            FlowDefinition,
            kind="swarm",
            name=name or _default_name("swarm", members),
            kwargs=as_json_object({**(bind or {}), **kwargs}),
            config=config,
        )
        self._members.check_shared_values(definition.name, members, definition.kwargs)
        if config.max_task_allowed is not None and len(members) > config.max_task_allowed:
            raise SwarmFullError(definition.name, config.max_task_allowed)
        on_success = await self._members.resolve_members(success_callbacks, "success_callbacks")
        on_error = await self._members.resolve_members(error_callbacks, "error_callbacks")
        self._check_callbacks(on_success, on_error)
        header = swarm_header(definition.name, len(members), config, is_closed=closed)
        keys, status = await self._create_flow(definition, members, on_success, on_error, header)
        swarm = SwarmSignature(
            key=keys.record,
            name=definition.name,
            kwargs=definition.kwargs,
            config=config,
            is_closed=closed,
            total=len(members),
            pending=len(members),
            success_callbacks=_callback_keys(keys, "success", on_success),
            error_callbacks=_callback_keys(keys, "error", on_error),
            status=status,
        )
        return self._binder.bind(swarm)

    def _check_callbacks(self, success: Sequence[MemberSpec], error: Sequence[MemberSpec]) -> None:
        self._members.check_receives(success, "result")
        self._members.check_receives(error, "error")

    async def _create_flow(
        self,
        definition: FlowDefinition,
        members: Sequence[MemberSpec],
        success: Sequence[MemberSpec],
        error: Sequence[MemberSpec],
        header: Mapping[str, str],
    ) -> tuple[RecordKeys, Status]:
        documents = list(flow_document(definition, success, error))
        for index, member in enumerate(members):
            documents += documents_of(member, MemberPath(index))
        identity = new_identity(definition.kind, *documents, *header.values())
        keys = self._store.keys.new(definition.kind, identity)
        places = ((str(index), member) for index, member in enumerate(members))
        copies = copies_of([*places, *callback_places(success, error)])
        _, status = await self._store.create(keys, documents, header, copies=copies)
        return keys, status


def _callback_keys(keys: RecordKeys, kind: CallbackKind, members: Sequence[MemberSpec]) -> tuple[str, ...]:
    return tuple(MemberPath().callback(kind, index).key(keys.record) for index in range(len(members)))


def _default_name(kind: str, members: Sequence[MemberSpec]) -> str:
    names = [member.name for member in members if isinstance(member.definition, TaskDefinition)]
    return f"{kind}:{names[0]}" if names else kind


def _listed(callbacks: object) -> object:
    is_many = isinstance(callbacks, list | tuple)
    return callbacks if is_many else () if callbacks is None else [callbacks]
