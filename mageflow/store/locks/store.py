"""Lock scripts as typed calls.

Keys, all under the one hash tag of a namespace's locks, owned by the lock service: ``locks``, ``owners``, ``waits``,
``queue``, ``sessions`` and ``members`` live a day and are refreshed by every script that writes to them and by every
renewal; ``fence`` lives a week; ``wake:<wake id>``, ``locks:ended`` and ``locks:late`` a minute. Fields:
``docs/storage-locks.md``.

This module owns the calls. It does not wait, retry or decide.
"""

import json
from collections.abc import Sequence
from typing import Final, cast

from mageflow.errors import StoreUnavailableError
from mageflow.interceptors import ResourceKey
from mageflow.store.keys import Keys
from mageflow.store.locks.records import (
    LockClaim,
    LockReply,
    LockSnapshot,
    LockVerdict,
    lock_name,
    owner_id,
    token_text,
    whole_ms,
)
from mageflow.store.locks.replies import parse_reply, parse_snapshot, parse_verdicts
from mageflow.store.redis.port import RedisPort
from mageflow.store.redis.scripts import Script

__all__ = ["LockStore"]

_KEYS: Final = ("locks", "owners", "waits", "queue", "sessions", "members", "fence", "wake")
_CLAIM: Final = ("request_id", "owner_id", "terms", "lock", "owner", "...")
_ACQUIRE: Final = Script("lock_acquire", _KEYS[:1], _CLAIM)
_RELEASE: Final = Script("lock_release", _KEYS[:1], ("request_id", "mode", "..."))
_END: Final = Script("lock_end", _KEYS, ("scope", "..."))
_RENEW: Final = Script("lock_renew", _KEYS, ("session_id", "lease_ms", "leases", "waiting", "granted"))
_SNAPSHOT: Final = Script("lock_snapshot", _KEYS, ("limit",))


class LockStore:
    """Runs the lock scripts of one namespace. Each method is one round trip and atomic.

    Every method raises `RedisNotConfiguredError`, `StoreUnavailableError` or `StoreError`.
    """

    def __init__(self, port: RedisPort, keys: Keys) -> None:
        self._port = port
        self._keys = tuple(keys.lock(each) for each in _KEYS)
        self._first_key = self._keys[:1]
        self._wake = keys.lock("wake")

    async def acquire(self, claim: LockClaim) -> LockReply:
        """Take the locks, or queue for the first that is held.

        Returns:
            A verdict of kind granted, queued, deadlock, busy or session_lost.
        """
        return await self._run(_ACQUIRE, *claim.arguments())

    async def release(
        self, request_id: str, resources: Sequence[ResourceKey], *, is_answered: bool = True
    ) -> LockReply:
        """End a request; its locks go to the next in each queue. A second call changes nothing.

        Args:
            request_id: The request.
            resources: What it requested.
            is_answered: Whether its caller got the answer of `acquire`. If not, this answer has the deadlocks that the
                request has resolved.
        """
        mode = "end" if is_answered else "unanswered"
        return await self._run(_RELEASE, request_id, mode, *(lock_name(each) for each in resources))

    async def withdraw(self, request_id: str, resources: Sequence[ResourceKey]) -> LockReply:
        """Leave the queue. If the request was granted meanwhile, it keeps its locks and the verdict is granted."""
        return await self._run(_RELEASE, request_id, "withdraw", *(lock_name(each) for each in resources))

    async def end_attempts(self, session_id: str, attempt_ids: Sequence[str]) -> LockReply:
        """End everything these attempts hold and wait for."""
        return await self._run(_END, "owner", *(owner_id(session_id, each) for each in attempt_ids))

    async def end_session(self, session_id: str) -> LockReply:
        """End everything a process holds and waits for."""
        return await self._run(_END, "session", session_id)

    async def renew(
        self,
        session_id: str,
        lease_seconds: float,
        leases: Sequence[tuple[ResourceKey, int]],
        waiting: Sequence[str],
        granted: Sequence[str] = (),
    ) -> LockReply:
        """Renew a session; learn which of its leases are gone, and where its requests stand.

        Args:
            session_id: The session.
            lease_seconds: It lives this long from now.
            leases: Resource and token of each lock the process believes to hold.
            waiting: Ids of the requests it believes to wait.
            granted: Ids of the requests behind the leases. What else Redis has for the session is reported in
                `LockReply.unknown_requests`.
        """
        held = [[lock_name(resource), token_text(token)] for resource, token in leases]
        return await self._run(
            _RENEW,
            session_id,
            whole_ms(lease_seconds),
            json.dumps(held),
            json.dumps(list(waiting)),
            json.dumps(list(granted)),
        )

    async def verdicts(self, wake_id: str, timeout_seconds: float) -> list[tuple[str, LockVerdict]] | None:
        """Block until verdicts on this process's queued requests arrive, or until the timeout.

        Delivery is at most once: an answer sent over a connection that breaks is lost. `renew` reports such verdicts
        again.

        Returns:
            Request ids and their verdicts; an empty list after the timeout; None if the client's own socket timeout
            is shorter than ``timeout_seconds``.
        """
        try:
            seconds = await self._port.blocking_seconds(timeout_seconds)
            reply = await self._port.command(
                "BLMPOP", seconds, 1, f"{self._wake}:{wake_id}", "LEFT", "COUNT", 128, operation="lock_wake"
            )
        except StoreUnavailableError as error:
            if self._port.is_timeout(error):
                return None
            raise
        return parse_verdicts(cast("list[str]", reply[1]) if reply else [])

    async def aclose(self) -> None:
        """Close the connections made for the running loop; no round trip."""
        await self._port.aclose()

    async def snapshot(self, limit: int = 1000) -> LockSnapshot:
        """Every holder and waiter at one instant; at most ``limit`` of each."""
        return parse_snapshot(await self._port.call(_SNAPSHOT, self._keys, (limit,)))

    async def _run(self, script: Script, *args: str | int) -> LockReply:
        keys = self._keys if len(script.keys) > 1 else self._first_key
        return parse_reply(await self._port.call(script, keys, args), script.name)
