"""The operations of the client on what is stored: load, find, change, suspend, resume, interrupt, remove."""

from collections.abc import AsyncIterator, Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

from mageflow import store
from mageflow.client.connected import ConnectedClient
from mageflow.signatures import Status
from mageflow.types import SignatureKind

__all__ = ["StoredClient"]


class StoredClient(ConnectedClient):
    """The part of `Mageflow` that reads and changes stored signatures and flows.

    Every coroutine method raises `RedisNotConfiguredError` if the client has no Redis, `StoreUnavailableError` if Redis
    cannot be reached, and `StoreError` if Redis refuses. After `StoreUnavailableError` it is unknown whether the change
    was made. All of them may be repeated.
    """

    async def load_signature(self, key: str) -> "store.AnySignature":
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
            RedisNotConfiguredError: The client has no Redis.
            StoreUnavailableError: Redis is unreachable, or refuses for now.
        """
        return await self._flows.load(key)

    async def rebind(
        self, signature: "store.AnySignature | str", *, bind: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> "store.AnySignature":
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
            RedisNotConfiguredError: The client has no Redis.
            StoreUnavailableError: Redis is unreachable, or refuses for now.
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
    ) -> "AsyncIterator[store.FoundSignature]":
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
            RedisNotConfiguredError: The client has no Redis.
            StoreUnavailableError: Redis is unreachable, or refuses for now.
        """
        return self._flows.search.find(status=status, task=task, flow=flow, since=since)

    async def signature_counts(self) -> dict[SignatureKind, dict[Status, int]]:
        """Count signatures, chains and swarms of this client's namespace by kind and status.

        One round trip to Redis; 16 on a Cluster. The numbers are those of the metric ``mageflow_signatures``.

        Returns:
            For example ``counts["chain"][Status.FAILED]``; 0 where there are none.

        Raises:
            RedisNotConfiguredError: The client has no Redis.
            StoreUnavailableError: Redis is unreachable, or refuses for now.
        """
        return await self._flows.search.counts()

    async def suspend(self, signature: "store.AnySignature | str", *, by: str = "", why: str = "") -> Status:
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
            RedisNotConfiguredError: The client has no Redis.
            StoreUnavailableError: Redis is unreachable, or refuses for now.
        """
        return await self._flows.lifecycle.suspend(_key(signature), by=by, why=why)

    async def resume(self, signature: "store.AnySignature | str", *, by: str = "", why: str = "") -> Status:
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
            RedisNotConfiguredError: The client has no Redis.
            StoreUnavailableError: Redis is unreachable, or refuses for now.
        """
        return await self._flows.lifecycle.resume(_key(signature), by=by, why=why)

    async def interrupt(self, signature: "store.AnySignature | str", *, by: str = "", why: str = "") -> Status:
        """End a signature or flow now.

        Its runs are cancelled in Hatchet, waiting members are dropped, and the error callbacks run with a `TaskError`
        of type ``TaskInterrupted`` and ``why`` as the message. A flow that never started ends without callbacks. A
        result that arrives later changes nothing. Interrupting a step or an item cancels that member; its chain then
        ends as cancelled. Starts at a time are taken back, as by ``signature.aio_unschedule()``.

        One round trip to Redis, atomic, one call to Hatchet, and one round trip more for each nested flow; two calls
        more for a task signature with scheduled runs ahead. The done TTL applies from then on. Repeating it changes
        nothing. Telemetry: ``mageflow_signature_writes_total{operation="update"}``; for a flow
        ``mageflow_flows_finished_total``.

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
            DispatchError: Hatchet did not delete the scheduled runs. It is interrupted all the same, so they end as
                cancelled when they start; repeat the call.
            RedisNotConfiguredError: The client has no Redis.
            StoreUnavailableError: Redis is unreachable, or refuses for now.
        """
        return await self._flows.lifecycle.interrupt(_key(signature), by=by, why=why)

    async def remove(self, signature: "store.AnySignature | str") -> bool:
        """Delete a signature or flow with everything stored for it, and cancel its runs. No callback runs.

        Nested flows are removed too, and starts at a time are taken back. One round trip to Redis for each record, each
        atomic, one call to Hatchet for each record with live runs, and two for a task signature with scheduled runs
        ahead. Telemetry: ``mageflow_signature_writes_total{operation="delete"}``.

        Args:
            signature: A signature, chain or swarm, or its key.

        Returns:
            False if nothing was stored under the key.

        Raises:
            FlowDefinitionError: It is a member of a flow: remove the flow.
            DispatchError: Hatchet did not cancel the runs, or did not delete the scheduled runs. Everything stored is
                deleted all the same, so a scheduled run fails with `SignatureNotFoundError` when it starts.
            RedisNotConfiguredError: The client has no Redis.
            StoreUnavailableError: Redis is unreachable, or refuses for now.
        """
        return await self._flows.lifecycle.remove(_key(signature))


def _key(signature: "store.AnySignature | str") -> str:
    return signature if isinstance(signature, str) else signature.key
