"""Creates signatures, chains and swarms: ``client.sign``, ``client.chain`` and ``client.swarm``.

Creating anything from task objects, names, flows, or signatures made in this process is one round trip to Redis,
whatever its size. A member given as a key, or as a signature that was loaded, costs one round trip more.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from mageflow.errors import FlowDefinitionError, SwarmFullError
from mageflow.flows.identity import new_identity
from mageflow.flows.members import MemberResolver, MemberSpec, documents_of, flow_document
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
)
from mageflow.store import RecordKeys, Store

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
        members: Resolves what a user names.
        binder: Makes what is created able to act.
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
        """Store a task with values bound to it. One round trip.

        A signature may be run as often as one likes; each run is a run of its own, with its own callbacks, and
        `Signature.status` tells of the last. Inside a task that is retried or replayed, the same call returns what the
        first attempt stored.

        Args:
            task: A task object, a name, or a signature to add to (its bound values are kept, ``kwargs`` win).
            task_identifiers: Whatever the caller wants to recognise it by.
            success_callbacks: Tasks, names, signatures, keys or flows to run with the result.
            error_callbacks: The same, to run with a `TaskError` when it failed for good.
            bind: Bound values whose names are taken by this method's own parameters.
            kwargs: Bound values: fields of the task's input.

        Raises:
            FlowDefinitionError: The task is none, or has no such field.
            SignatureNotFoundError: A signature or key that was given is not stored (any more).
        """
        base = await self._members.resolve_member(task)
        if isinstance(base.definition, FlowMember):
            raise FlowDefinitionError("a chain or swarm has a signature of its own: use it as it is")
        bound = {**base.definition.kwargs, **(bind or {}), **kwargs}
        identifiers = {**base.definition.identifiers, **(task_identifiers or {})}
        member = MemberSpec(
            self._members.task_definition(base.definition.task, bound, identifiers),
            base.success + await self._members.resolve_members(success_callbacks, "success_callbacks"),
            base.error + await self._members.resolve_members(error_callbacks, "error_callbacks"),
        )
        documents = list(documents_of(member, ""))
        keys = self._store.keys.new("task", new_identity("task", *documents))
        _, status = await self._store.create(keys, documents, {"name": member.name})
        assert isinstance(member.definition, TaskDefinition)  # noqa: S101 - narrows the type
        signature = TaskSignature(
            key=keys.record,
            task_name=member.definition.task,
            task_identifiers=member.definition.identifiers,
            kwargs=member.definition.kwargs,
            success_callbacks=_callback_keys(keys, "s", member.success),
            error_callbacks=_callback_keys(keys, "e", member.error),
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
        """Store tasks that run one after another, each with the result of the one before. One round trip.

        The previous result arrives in the field annotated `ReturnValue`, else in ``mageflow_results``. A step that
        fails for good ends the chain as failed. A chain runs once; starting it again returns the run there is.

        Args:
            tasks: At least two: task objects, names, signatures, keys, chains, swarms.
            name: Its name in telemetry; the names of its tasks when not given.
            success: One callback or a list of them, run with the last result.
            error: One callback or a list of them, run with a `TaskError`.
            bind: Bound values whose names are taken by this method's own parameters.
            kwargs: Values bound to every step.

        Raises:
            FlowDefinitionError: There are fewer than two tasks, or one is none.
            SignatureNotFoundError: A signature or key that was given is not stored (any more).
        """
        members = await self._members.resolve_members(tasks, "tasks")
        if len(members) < 2:  # noqa: PLR2004
            raise FlowDefinitionError(f"a chain has at least two tasks, this one {len(members)}: sign a single task")
        definition = FlowDefinition(
            kind="chain",
            name=name or _default_name("chain", members),
            kwargs=as_json_object({**(bind or {}), **kwargs}),
        )
        on_success = await self._members.resolve_members(_listed(success), "success")
        on_error = await self._members.resolve_members(_listed(error), "error")
        header = {"name": definition.name, "total": str(len(members)), "step": "0"}
        keys, status = await self._create_flow(definition, members, on_success, on_error, header)
        chain = ChainSignature(
            key=keys.record,
            name=definition.name,
            kwargs=definition.kwargs,
            steps=tuple(f"{keys.record}#{index}" for index in range(len(members))),
            success_callbacks=_callback_keys(keys, "s", on_success),
            error_callbacks=_callback_keys(keys, "e", on_error),
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
        """Store tasks that run side by side, at most ``config.max_concurrency`` at once. One round trip.

        How it ends, once it is closed and no item is left:

        - items succeeded (some or all): ``done``; the success callbacks get the results in task order, with ``null``
          where an item failed;
        - every item failed: ``failed``; so does the failure that reaches ``stop_after_n_failures``, at once: what runs
          is cancelled and what waits is dropped;
        - it never had an item: ``done``, with an empty list, as gathering nothing gives.

        A swarm that is not closed does not end by itself: close it when every task is added.

        Args:
            tasks: Task objects, names, signatures, keys, chains, swarms.
            name: Its name in telemetry; the name of its first task when not given.
            config: See `SwarmConfig`.
            success_callbacks: Run with the list of results.
            error_callbacks: Run with a `TaskError`.
            closed: Whether these are all.
            bind: Bound values whose names are taken by this method's own parameters.
            kwargs: Values bound to every item.

        Raises:
            FlowDefinitionError: A task is none.
            SwarmFullError: There are more than ``max_task_allowed``.
            SignatureNotFoundError: A signature or key that was given is not stored (any more).
        """
        config = config or SwarmConfig()
        members = await self._members.resolve_members(tasks, "tasks")
        definition = FlowDefinition(
            kind="swarm",
            name=name or _default_name("swarm", members),
            kwargs=as_json_object({**(bind or {}), **kwargs}),
            config=config,
        )
        if config.max_task_allowed is not None and len(members) > config.max_task_allowed:
            raise SwarmFullError(definition.name, config.max_task_allowed)
        on_success = await self._members.resolve_members(success_callbacks, "success_callbacks")
        on_error = await self._members.resolve_members(error_callbacks, "error_callbacks")
        header = {
            "name": definition.name,
            "total": str(len(members)),
            "next": "0",
            "running": "0",
            "ok": "0",
            "bad": "0",
            "closed": "1" if closed else "0",
            "max": str(config.max_concurrency),
            "batch": str(config.refill_batch),
            "linger": str(config.refill_linger_ms),
            "stop": str(config.stop_after_n_failures or 0),
            "allowed": str(config.max_task_allowed or 0),
        }
        keys, status = await self._create_flow(definition, members, on_success, on_error, header)
        swarm = SwarmSignature(
            key=keys.record,
            name=definition.name,
            kwargs=definition.kwargs,
            config=config,
            is_closed=closed,
            total=len(members),
            pending=len(members),
            success_callbacks=_callback_keys(keys, "s", on_success),
            error_callbacks=_callback_keys(keys, "e", on_error),
            status=status,
        )
        return self._binder.bind(swarm)

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
            documents += documents_of(member, str(index))
        identity = new_identity(definition.kind, *documents, *header.values())
        keys = self._store.keys.new(definition.kind, identity)
        _, status = await self._store.create(keys, documents, header)
        return keys, status


def _callback_keys(keys: RecordKeys, mark: str, members: Sequence[MemberSpec]) -> tuple[str, ...]:
    return tuple(f"{keys.record}#.{mark}{index}" for index in range(len(members)))


def _default_name(kind: str, members: Sequence[MemberSpec]) -> str:
    names = [member.name for member in members if isinstance(member.definition, TaskDefinition)]
    return f"{kind}:{names[0]}" if names else kind


def _listed(callbacks: object) -> object:
    is_many = isinstance(callbacks, list | tuple)
    return callbacks if is_many else () if callbacks is None else [callbacks]
