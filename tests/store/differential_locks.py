"""Compares both texts of the lock scripts over random stories: ``python -m tests.store.differential --of locks``.

A story is a few processes around a few locks: nested blocks, several locks at once, queues, deadlocks, requests that
come twice or after their release, withdrawals, renewals, sessions that end, damage.
"""

import random
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

from mageflow.errors import MageflowError
from mageflow.interceptors import ResourceKey
from mageflow.store import Keys, LockClaim, LockOwner, LockReply, LockStore
from tests.store.two_texts import TwoTexts, damage_one

LOCKS: Final = ("a", "b", "c", 'd/"ü"\\', "e\n")
UNUSED: Final = {"waits": "hash", "queue": "zset", "fence": "string"}
"""Keys that one of the first parts does not use."""
UNUSED_ANSWER: Final = re.compile(
    r"^lock_(acquire|release) answers .*'(granted|ended)'.*, without its first part 'WRONGTYPE"
)
OWNERS: Final = {"r1": "s1.0", "r2": "s1.0", "r3": "s2.0", "r4": "s2.0", "r5": "s3.0"}


class LockStory:
    """Random work on the locks of one namespace, on one pair of databases."""

    def __init__(self, port: TwoTexts, seed: int) -> None:
        self.port = port
        self.chance = random.Random(seed)
        self.store = LockStore(port, Keys("mageflow", "stories"))
        self.claims: dict[str, LockClaim] = {}
        self.tokens: dict[str, tuple[int, ...]] = {}
        """By request that was granted and not released."""
        self.count = 0

    async def play(self) -> None:
        """Play it until both databases differ."""
        self.port.begin()
        is_damaged = self.chance.random() < 0.4
        works: list[Callable[[], Awaitable[Any]]] = [
            *[self.usual] * 6, *[self.acquire] * 12, *[self.release] * 10, self.again, self.again, self.withdraw,
            self.release_again, self.renew, self.renew, self.end_attempt, self.end_session, self.pass_time, self.wake,
            *[self.damage] * (2 if is_damaged else 0),
        ]  # fmt: skip
        if self.chance.random() < 0.5:
            works = [self.usual, self.usual, self.acquire, self.acquire, self.release, self.damage]
        for _ in range(self.chance.choice((8, 20, 40))):
            with suppress(MageflowError):
                await self.chance.choice(works)()
            if self.port.differences:
                self._forgive_unused_keys()
                return

    def _forgive_unused_keys(self) -> None:
        """A free lock is taken and released while a key of another type is in the place of one that it does not use.

        Only a request that waits needs that key, and the whole script, which does not know yet whether one waits.
        """
        stored = self.port.stored()
        found = {name: stored.get(self.store._keys[0][: -len("locks")] + name, ("",))[0] for name in UNUSED}
        is_damaged = any(found[name] not in ("", kind) for name, kind in UNUSED.items())
        if is_damaged and UNUSED_ANSWER.search(self.port.differences[0]):
            self.port.differences.clear()

    def _claim(self, owner: str, locks: tuple[str, ...], **changed: Any) -> LockClaim:
        self.count += 1
        ours = [
            token for each, tokens in self.tokens.items() if self.claims[each].attempt_id == owner for token in tokens
        ]
        facts: dict[str, Any] = {
            "request_id": f"q{self.count}", "attempt_id": owner, "session_id": OWNERS[owner],
            "session_is_open": self.chance.random() < 0.3, "resources": tuple(ResourceKey(each) for each in locks),
            "owner": LockOwner(f"task-{owner}", owner, worker="w/1\n"),
            "lease_seconds": self.chance.choice((60.0, 20.0)),
            "wake_id": OWNERS[owner][:2], "born_ms": self.chance.randrange(10),
            "priority": self.chance.choice((1, 2, 3)),
            "policy": self.chance.choice(("requester", "youngest", "lowest_priority")),
            "traceparent": self.chance.choice(("", "00-1")), "can_wait": self.chance.random() < 0.8,
            "enclosing_tokens": tuple(self.chance.choice((ours, ours, ours[:1], []))),
        }  # fmt: skip
        claim = LockClaim(**{**facts, **changed})
        self.claims[claim.request_id] = claim
        return claim

    def _note(self, request_id: str, reply: LockReply) -> None:
        if reply.verdict.kind == "granted":
            self.tokens[request_id] = reply.verdict.tokens

    async def usual(self) -> None:
        """A free lock, taken and released; then at times one of the two comes again."""
        claim = self._claim(self.chance.choice(sorted(OWNERS)), (f"free{self.chance.randrange(3)}",))
        await self.store.acquire(claim)
        if self.chance.random() < 0.8:
            await self.store.release(claim.request_id, claim.resources)
            if self.chance.random() < 0.2:
                await self.store.acquire(claim)

    async def acquire(self) -> None:
        locks = self.chance.sample(LOCKS, self.chance.choice((1, 1, 1, 1, 2, 3)))
        claim = self._claim(self.chance.choice(sorted(OWNERS)), tuple(sorted(locks)))
        self._note(claim.request_id, await self.store.acquire(claim))

    def _chosen(self) -> LockClaim | None:
        known = sorted(self.tokens) if self.chance.random() < 0.7 else sorted(self.claims)[-6:]
        return self.claims[self.chance.choice(known)] if known else None

    async def again(self) -> None:
        if claim := self._chosen():
            self._note(claim.request_id, await self.store.acquire(claim))

    async def release(self) -> None:
        if claim := self._chosen():
            self.tokens.pop(claim.request_id, None)
            await self.store.release(claim.request_id, claim.resources, is_answered=self.chance.random() < 0.8)

    async def release_again(self) -> None:
        if self.claims:
            claim = self.claims[self.chance.choice(sorted(self.claims))]
            await self.store.release(claim.request_id, claim.resources)

    async def withdraw(self) -> None:
        if claim := self._chosen():
            self._note(claim.request_id, await self.store.withdraw(claim.request_id, claim.resources))

    async def renew(self) -> None:
        session = self.chance.choice(sorted(set(OWNERS.values())))
        mine = [each for each, claim in self.claims.items() if claim.session_id == session]
        leases = [
            (resource, token)
            for each in mine
            for resource, token in zip(self.claims[each].resources, self.tokens.get(each, ()), strict=False)
        ]
        waiting = [each for each in mine if each not in self.tokens]
        await self.store.renew(session, 60.0, leases, waiting, [each for each in mine if each in self.tokens][:1])

    async def end_attempt(self) -> None:
        owner = self.chance.choice(sorted(OWNERS))
        await self.store.end_attempts(OWNERS[owner], [owner])

    async def end_session(self) -> None:
        await self.store.end_session(self.chance.choice(sorted(set(OWNERS.values()))))

    async def pass_time(self) -> None:
        self.port.let_pass(int(self.chance.choice((0.01, 1, 19, 21, 61, 61, 90000)) * 1e6))

    async def wake(self) -> None:
        key = f"{self.store._wake}:{self.chance.choice(('s1', 's2', 's3'))}"
        await self.port.command("LPOP", key)

    async def damage(self) -> None:
        await damage_one(self.port, self.chance)
