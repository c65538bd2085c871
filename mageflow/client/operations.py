"""What is kept in Redis: locks, signatures, chains and swarms, and the verbs that act on them.

Each method is a door to ``mageflow.locks`` or ``mageflow.flows`` and says no more than where to read on.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mageflow.flows import Flows
from mageflow.locks import LockService, Resource
from mageflow.signatures import ChainSignature, Status, SwarmConfig, SwarmSignature, TaskSignature
from mageflow.store import AnySignature, RedisPort

__all__ = ["StateOperations"]


class StateOperations:
    """The part of `Mageflow` that needs Redis.

    Every method raises `RedisNotConfiguredError` when the client has none, and `StoreUnavailableError` when it cannot
    be reached.
    """

    _locks: LockService
    _flows: Flows
    _port: RedisPort

    @property
    def locks(self) -> LockService:
        """The locks of this client's namespace: several resources at once, and who holds what."""
        return self._locks

    def resource(self, name: str) -> Resource:
        """Declare something only one run may use at a time; see `mageflow.locks.LockService.resource`."""
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
        """Store a task with values bound to it; see `mageflow.flows.Flows.sign`. One round trip to Redis."""
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
        """Store tasks that run one after another; see `mageflow.flows.Flows.chain`. One round trip to Redis."""
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
        """Store tasks that run side by side; see `mageflow.flows.Flows.swarm`. One round trip to Redis."""
        return await self._flows.creation.swarm(
            tasks, name, config, success_callbacks, error_callbacks, closed=closed, bind=bind, **kwargs
        )

    async def load_signature(self, key: str) -> AnySignature:
        """A signature, a chain, a swarm or a member of one, as it is now; see `mageflow.flows.Flows.load`."""
        return await self._flows.load(key)

    async def suspend(self, signature: AnySignature | str, *, by: str = "", why: str = "") -> Status:
        """Let nothing more of a signature or flow start, by object or key; see `mageflow.lifecycle`."""
        return await self._flows.lifecycle.suspend(_key(signature), by=by, why=why)

    async def resume(self, signature: AnySignature | str, *, by: str = "", why: str = "") -> Status:
        """Go on from where `suspend` stopped it; see `mageflow.lifecycle`."""
        return await self._flows.lifecycle.resume(_key(signature), by=by, why=why)

    async def interrupt(self, signature: AnySignature | str, *, by: str = "", why: str = "") -> Status:
        """End it now, and cancel in Hatchet what runs; see `mageflow.lifecycle`."""
        return await self._flows.lifecycle.interrupt(_key(signature), by=by, why=why)

    async def remove(self, signature: AnySignature | str) -> bool:
        """Delete everything stored for it; see `mageflow.lifecycle`. True when there was something to delete."""
        return await self._flows.lifecycle.remove(_key(signature))

    async def aclose(self) -> None:
        """Give back what this process holds and close the connections to Redis made for the running event loop.

        For programs whose event loops come and go; a worker does it when it stops. A Redis client that was given stays
        open, and the client can be used again.
        """
        await self._flows.drain()
        await self._locks.aclose()
        await self._port.aclose()

    asign = sign
    achain = chain
    aswarm = swarm


def _key(signature: AnySignature | str) -> str:
    return signature if isinstance(signature, str) else signature.key
