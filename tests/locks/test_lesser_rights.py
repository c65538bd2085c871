"""A Redis user without one right: a request or a release that is refused has changed nothing."""

import re
from collections.abc import AsyncIterator

import pytest
import redis.asyncio

from mageflow.errors import StoreUnavailableError
from mageflow.interceptors import ResourceKey
from mageflow.store import Keys, LockClaim, LockOwner, LockStore, RedisPort
from mageflow.store.locks.store import _ACQUIRE, _RELEASE
from mageflow.testing.valkey import EmbeddedValkey

KEYS = Keys("mageflow", "tests")
NAMES = ("locks", "owners", "waits", "queue", "sessions", "members", "fence", "wake", "locks:ended", "locks:late")
COMMANDS = sorted(set(re.findall(r"(?:redis\.call|may)\('([A-Z]+)'", _ACQUIRE.source + _RELEASE.source)))
A, B = ResourceKey("alpha"), ResourceKey("beta")


def all_keys_but(key: str) -> tuple[str, ...]:
    """Patterns name what is allowed: what differs from the key at some letter, and what is longer."""
    return (*(f"~{_glob(key[:index])}[^{_glob(key[index])}]*" for index in range(len(key))), f"~{_glob(key)}?*")


def _glob(text: str) -> str:
    return re.sub(r"([\[\]*?^\\])", r"\\\1", text)


RULES = {f"-{each.lower()}": ("~*", f"-{each.lower()}") for each in COMMANDS} | {
    f"no {each}": all_keys_but(KEYS.lock(each)) for each in NAMES
}


def claim(*resources: ResourceKey) -> LockClaim:
    """A request of one attempt."""
    return LockClaim(
        "r1", "a:1", "s.0", session_is_open=False, resources=resources, owner=LockOwner(), lease_seconds=60, wake_id="s"
    )


@pytest.fixture
async def lesser(valkey: EmbeddedValkey) -> AsyncIterator[LockStore]:
    """The lock scripts as a user whose rights the test sets."""
    async with redis.asyncio.Redis.from_url(valkey.url) as admin:
        await admin.acl_setuser("lesser", enabled=True, passwords=["+secret"])
        port = RedisPort(valkey.url.replace("redis://", "redis://lesser:secret@"))
        yield LockStore(port, KEYS)
        await port.aclose()
        await admin.acl_deluser("lesser")


@pytest.mark.parametrize("rule", RULES)
async def test_what_is_refused_changes_nothing(
    store: LockStore, lesser: LockStore, valkey: EmbeddedValkey, rule: str
) -> None:
    """One free lock and its release, which have short scripts of their own; two locks; a release of nothing."""
    operations = {
        "acquire": lambda: lesser.acquire(claim(A)),
        "acquire two": lambda: lesser.acquire(claim(A, B)),
        "release": lambda: lesser.release("r1", (A,)),
        "release nothing": lambda: lesser.release("r2", (A,)),
    }
    refused = 0
    async with redis.asyncio.Redis.from_url(valkey.url) as admin:
        await admin.execute_command("ACL", "SETUSER", "lesser", "+@all", "&*", "resetkeys", *RULES[rule])
        for name, operation in operations.items():
            await admin.flushall()
            if name == "release":
                await store.acquire(claim(A))
            before = {key: await admin.dump(key) for key in sorted(await admin.keys("*"))}
            try:
                await operation()
            except StoreUnavailableError:
                refused += 1
                assert {key: await admin.dump(key) for key in sorted(await admin.keys("*"))} == before, name
    assert refused or rule in (
        "no waits",
        "no queue",
        "no wake",
        "no locks:ended",
        "no locks:late",
        "-rpush",
        "-zlexcount",
    ), "it matters"
