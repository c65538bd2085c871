"""Creates signatures, chains and swarms: ``client.sign``, ``client.chain`` and ``client.swarm``.

Creating anything from task objects, names, flows, or signatures made in this process is one round trip to Redis, at any
size. A member given as a key, or as a signature that was loaded, costs one round trip more.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

from mageflow._frozen import frozen
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
        """Store a task with bound values.

        One round trip to Redis, atomic, and one more for each task or callback that is a key or a loaded signature. The
        key is random outside a task. Inside one it is derived from the running attempt and the content, so a retry that
        makes the same call gets what the first attempt stored.

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
        added = await self._callbacks(success_callbacks=success_callbacks, error_callbacks=error_callbacks)
        callbacks = _Callbacks(base.success + added.success, base.error + added.error)
        definition = self._members.task_definition(base.definition.task, bound, identifiers)
        member = MemberSpec(definition, callbacks.success, callbacks.error)
        documents = list(documents_of(member, MemberPath()))
        keys = self._store.keys.new("task", new_identity("task", *documents))
        copies = copies_of(callback_places(member.success, member.error))
        _, status = await self._store.create(keys, documents, task_header(member.name), copies=copies)
        signature = TaskSignature(
            key=keys.record,
            task_name=definition.task,
            task_identifiers=definition.identifiers,
            kwargs=definition.kwargs,
            success_callbacks=callbacks.keys("success", keys),
            error_callbacks=callbacks.keys("error", keys),
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
        """Store tasks that run one after another.

        Given signatures are copied into the chain with their bound values and callbacks. Given chains and swarms are
        not copied: they belong to this chain, which starts them. Round trips, atomicity, the key and a repeated call
        are those of `sign`, for any number of tasks.

        Raises:
            FlowDefinitionError: There are fewer than two tasks, a task or callback cannot be run, or a value is bound
                to a field that no step has.
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
        definition = self._flow_definition("chain", name, members, {**(bind or {}), **kwargs})
        callbacks = await self._callbacks(success=_listed(success), error=_listed(error))
        self._members.check_receives(members[1:], "result")
        header = chain_header(definition.name, len(members))
        keys, status = await self._create_flow(definition, members, callbacks, header)
        chain = ChainSignature(
            key=keys.record,
            name=definition.name,
            kwargs=definition.kwargs,
            steps=tuple(MemberPath(index).key(keys.record) for index in range(len(members))),
            success_callbacks=callbacks.keys("success", keys),
            error_callbacks=callbacks.keys("error", keys),
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
        """Store tasks that run side by side; `Swarms` adds more of them.

        Given signatures are copied into the swarm; given chains and swarms belong to it. Round trips, atomicity, the
        key and a repeated call are those of `sign`, for any number of tasks.

        Raises:
            FlowDefinitionError: A task or callback cannot be run, a value is bound to a field that no item has, or a
                limit of `SwarmConfig` is given outside of ``config``.
            SwarmFullError: There are more tasks than ``config.max_task_allowed``.
            ConfigurationError: A value has no JSON form.
            SignatureNotFoundError: A given signature or key expired or was removed.
            SignatureInvalidError: A given signature or key holds a document that does not validate.
        """
        config = config or SwarmConfig()
        members = await self._members.resolve_members(tasks, "tasks")
        self._members.check_no_callbacks(kwargs, success="success_callbacks", error="error_callbacks")
        self._members.check_no_limits(members, kwargs)
        definition = self._flow_definition("swarm", name, members, {**(bind or {}), **kwargs}, config)
        if config.max_task_allowed is not None and len(members) > config.max_task_allowed:
            raise SwarmFullError(definition.name, config.max_task_allowed)
        callbacks = await self._callbacks(success_callbacks=success_callbacks, error_callbacks=error_callbacks)
        header = swarm_header(definition.name, len(members), config, is_closed=closed)
        keys, status = await self._create_flow(definition, members, callbacks, header)
        swarm = SwarmSignature(
            key=keys.record,
            name=definition.name,
            kwargs=definition.kwargs,
            config=config,
            is_closed=closed,
            total=len(members),
            pending=len(members),
            success_callbacks=callbacks.keys("success", keys),
            error_callbacks=callbacks.keys("error", keys),
            status=status,
        )
        return self._binder.bind(swarm)

    def _flow_definition(
        self,
        kind: Literal["chain", "swarm"],
        name: str | None,
        members: Sequence[MemberSpec],
        kwargs: Mapping[str, Any],
        config: SwarmConfig | None = None,
    ) -> FlowDefinition:
        definition = defined(
            FlowDefinition,
            kind=kind,
            name=name or _default_name(kind, members),
            kwargs=as_json_object(kwargs),
            config=config,
        )
        self._members.check_shared_values(definition.name, members, definition.kwargs)
        return definition

    async def _callbacks(self, **given: object) -> "_Callbacks":
        """Resolve the callbacks for a success and for an error, in this order, under their names of parameters."""
        success, error = [await self._members.resolve_members(callbacks, name) for name, callbacks in given.items()]
        self._members.check_receives(success, "result")
        self._members.check_receives(error, "error")
        return _Callbacks(success, error)

    async def _create_flow(
        self,
        definition: FlowDefinition,
        members: Sequence[MemberSpec],
        callbacks: "_Callbacks",
        header: Mapping[str, str],
    ) -> tuple[RecordKeys, Status]:
        documents = list(flow_document(definition, callbacks.success, callbacks.error))
        for index, member in enumerate(members):
            documents += documents_of(member, MemberPath(index))
        identity = new_identity(definition.kind, *documents, *header.values())
        keys = self._store.keys.new(definition.kind, identity)
        places = ((str(index), member) for index, member in enumerate(members))
        copies = copies_of([*places, *callback_places(callbacks.success, callbacks.error)])
        _, status = await self._store.create(keys, documents, header, copies=copies)
        return keys, status


@frozen
class _Callbacks:
    """What runs at the end of a signature or flow."""

    success: tuple[MemberSpec, ...]
    error: tuple[MemberSpec, ...]

    def keys(self, kind: CallbackKind, keys: RecordKeys) -> tuple[str, ...]:
        members = self.success if kind == "success" else self.error
        return tuple(MemberPath().callback(kind, index).key(keys.record) for index in range(len(members)))


def _default_name(kind: str, members: Sequence[MemberSpec]) -> str:
    names = [member.name for member in members if isinstance(member.definition, TaskDefinition)]
    return f"{kind}:{names[0]}" if names else kind


def _listed(callbacks: object) -> object:
    is_many = isinstance(callbacks, list | tuple)
    return callbacks if is_many else () if callbacks is None else [callbacks]
