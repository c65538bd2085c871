"""Lock scripts as typed calls.

Keys, all under the one hash tag of a namespace's locks (why: ``lua/lib_lock.lua``), owned by the lock service:
``locks``, ``owners``, ``waits``, ``queue``, ``sessions``, ``members`` live a day and are refreshed by every script
that writes; ``fence`` a week; ``wake:<process>`` and ``locks:ended`` a minute. Empty ones vanish by themselves.

This module owns the calls. It refuses to wait, to retry and to decide anything.
"""

import json
from collections.abc import Sequence
from typing import Final, cast

import redis.exceptions

from mageflow.errors import StoreUnavailableError
from mageflow.interceptors import ResourceKey
from mageflow.store.keys import Keys
from mageflow.store.locks.records import (
    LockClaim,
    LockPicture,
    LockReply,
    LockVerdict,
    lock_id,
    owner_id,
    picture_of,
    reply_of,
    token_text,
    verdicts_of,
    whole_ms,
)
from mageflow.store.redis.port import RedisPort
from mageflow.store.redis.scripts import Script

__all__ = ["LockStore"]

_KEYS: Final = ("locks", "owners", "waits", "queue", "sessions", "members", "fence", "wake")
_ACQUIRE: Final = Script("lock_acquire", _KEYS, ("claim", "..."))
_RELEASE: Final = Script("lock_release", _KEYS, ("request", "mode", "..."))
_END: Final = Script("lock_end", _KEYS, ("scope", "..."))
_RENEW: Final = Script("lock_renew", _KEYS, ("session", "lease_ms", "leases", "requests", "known"))
_SNAPSHOT: Final = Script("lock_snapshot", _KEYS, ("limit",))


class LockStore:
    """Runs the lock scripts of one namespace; each method is one round trip.

    Every method raises `RedisNotConfiguredError`, `StoreUnavailableError` or `StoreError`.
    """

    def __init__(self, port: RedisPort, keys: Keys) -> None:
        self._port = port
        self._keys = tuple(keys.lock(each) for each in _KEYS)
        self._wake = keys.lock("wake")

    async def acquire(self, claim: LockClaim) -> LockReply:
        """Take the locks, or queue for the first that is held: granted, queued, deadlock, busy or session_lost."""
        return await self._run(_ACQUIRE, claim.to_json(), *(lock_id(each) for each in claim.resources))

    async def release(self, request: str, resources: Sequence[ResourceKey]) -> LockReply:
        """End a request; its locks go to the next in each queue. Ending it again does nothing."""
        return await self._run(_RELEASE, request, "end", *(lock_id(each) for each in resources))

    async def withdraw(self, request: str, resources: Sequence[ResourceKey]) -> LockReply:
        """Leave the queue, unless the request was granted meanwhile: then it keeps its locks and is told so."""
        return await self._run(_RELEASE, request, "withdraw", *(lock_id(each) for each in resources))

    async def end_runs(self, session: str, runs: Sequence[str]) -> LockReply:
        """End everything these runs hold and wait for."""
        return await self._run(_END, "owner", *(owner_id(session, each) for each in runs))

    async def end_session(self, session: str) -> LockReply:
        """End everything a process holds and waits for."""
        return await self._run(_END, "session", session)

    async def renew(
        self,
        session: str,
        lease_seconds: float,
        leases: Sequence[tuple[ResourceKey, int]],
        requests: Sequence[str],
        known: Sequence[str] = (),
    ) -> LockReply:
        """Keep a session alive; learn which of its leases are gone, and where its requests stand.

        Args:
            session: Whose.
            lease_seconds: It lives this long from now.
            leases: What it believes to hold.
            requests: What it believes to wait for.
            known: Requests behind the leases; what else the server keeps for the session is reported as strange.
        """
        held = [[lock_id(resource), token_text(token)] for resource, token in leases]
        return await self._run(
            _RENEW,
            session,
            whole_ms(lease_seconds),
            json.dumps(held),
            json.dumps(list(requests)),
            json.dumps(list(known)),
        )

    async def verdicts(self, wake_id: str, timeout_seconds: float) -> list[tuple[str, LockVerdict]] | None:
        """Block until verdicts for this process's queued requests arrive, or the timeout; may return none.

        Delivery is at most once (the server forgets what it has handed to a connection that then breaks): `renew`
        tells again.

        Returns:
            Requests and their verdicts, or None when the client's own socket timeout was shorter.
        """
        try:
            seconds = await self._port.blocking_seconds(timeout_seconds)
            reply = await self._port.command(
                "BLMPOP", seconds, 1, f"{self._wake}:{wake_id}", "LEFT", "COUNT", 128, operation="lock_wake"
            )
        except StoreUnavailableError as error:
            if isinstance(error.__cause__, redis.exceptions.TimeoutError | TimeoutError):
                return None
            raise
        return verdicts_of(cast("list[str]", reply[1]) if reply else [])

    async def aclose(self) -> None:
        """Close the connections made for the running loop; not a round trip."""
        await self._port.aclose()

    async def snapshot(self, limit: int = 1000) -> LockPicture:
        """Every holder and waiter at one instant; at most ``limit`` of each."""
        return picture_of(await self._port.call(_SNAPSHOT, self._keys, (limit,)))

    async def _run(self, script: Script, *args: str | int) -> LockReply:
        return reply_of(await self._port.call(script, self._keys, args), script.name)
