"""The stored format of locks: both field tables are complete, and records of version 1 stay readable."""

import json
import re
import time
from pathlib import Path
from typing import Any

import redis.asyncio

from mageflow.interceptors import ResourceKey
from mageflow.store import Keys, LockClaim, LockOwner, LockStore, VictimPolicy
from mageflow.testing.valkey import EmbeddedValkey

ROOT = Path(__file__).parent.parent.parent
HEADER = ROOT / "mageflow" / "store" / "lua" / "lib_lock.lua"
DOCUMENT = ROOT / "docs" / "storage-locks.md"
VERSION_1 = Path(__file__).parent / "fixtures" / "v1.json"

KEYS = Keys("mageflow", "tests")
RECORDS = ("locks", "owners", "waits")
A, B = ResourceKey("alpha"), ResourceKey("beta", "key")


def claim(
    request_id: str, attempt: str, *resources: ResourceKey, enclosing: tuple[int, ...] = (), policy: VictimPolicy
) -> LockClaim:
    """A request of one attempt; each attempt is a process of its own, and the younger the later its name."""
    return LockClaim(
        request_id=request_id,
        attempt_id=f"{attempt}:1",
        session_id=f"{attempt}.0",
        session_is_open=False,
        resources=resources,
        owner=LockOwner(f"task-{attempt}", f"run-{attempt}", attempt, 1, "worker", "0" * 32, will_retry=True),
        lease_seconds=60.0,
        wake_id=attempt,
        policy=policy,
        born_ms=ord(attempt),
        priority=2,
        traceparent=f"00-{'0' * 31}1-{'0' * 15}1-01",
        enclosing_tokens=enclosing,
    )


async def stored(client: "redis.asyncio.Redis[Any]") -> dict[str, list[dict[str, Any]]]:
    """Every record, by key."""
    return {name: [json.loads(each) for each in (await client.hgetall(KEYS.lock(name))).values()] for name in RECORDS}


def header_fields() -> dict[str, set[str]]:
    """The fields of each key in the table of the Lua library."""
    fields: dict[str, set[str]] = {}
    key = ""
    table = HEADER.read_text().split("-- FIELD", 1)[1].split("-- Rules", 1)[0]
    for line in table.splitlines()[1:]:
        if match := re.match(r"--   ([a-z:_]+)", line):
            key = match[1].removesuffix(":")
            fields[key] = set()
        elif match := re.match(r"--     ([a-z_]+)", line):
            fields[key].add(match[1])
    return fields


def document_fields() -> dict[str, set[str]]:
    """The fields of each record in the tables of the document."""
    fields: dict[str, set[str]] = {}
    for section in DOCUMENT.read_text().split("\n## ")[1:]:
        key = re.search(r"`(\w+)`\n", section.split("\n\n", 1)[0] + "\n")
        fields[key[1] if key else "wake"] = set(re.findall(r"^\| `([a-z_]+)` \|", section, re.MULTILINE))
    return fields


def document_keys() -> set[str]:
    """The keys in the first table of the document."""
    overview = DOCUMENT.read_text().split("\n## ", 1)[0]
    return {each.partition(":<")[0] for each in re.findall(r"^\| `([^`]+)` \|", overview, re.MULTILINE)}


async def test_tables_list_exactly_what_the_scripts_store(store: LockStore, valkey: EmbeddedValkey) -> None:
    """Through every state: held, queued, victim of a deadlock, granted from the queue."""
    seen: dict[str, set[str]] = {name: set() for name in (*RECORDS, "wake")}
    keys: set[str] = set()
    async with redis.asyncio.Redis.from_url(valkey.url, decode_responses=True) as client:

        async def look() -> None:
            for name, records in (await stored(client)).items():
                for record in records:
                    seen[name] |= record.keys()
            for wake_id in ("x", "y"):
                for entry in await client.lrange(f"{KEYS.lock('wake')}:{wake_id}", 0, -1):
                    seen["wake"] |= json.loads(entry).keys()
            for key in await client.keys("*"):
                keys.add(re.sub(r"^(wake|locks:withdrawn):.*", r"\1", key.removeprefix(KEYS.lock(""))))

        [token_x] = (await store.acquire(claim("x1", "x", A, policy="requester"))).verdict.tokens
        [token_y] = (await store.acquire(claim("y1", "y", B, policy="requester"))).verdict.tokens
        queued = await store.acquire(claim("y2", "y", A, enclosing=(token_y,), policy="requester"))
        assert queued.verdict.kind == "queued"
        await look()
        closing = await store.acquire(claim("x2", "x", B, enclosing=(token_x,), policy="youngest"))
        assert [each.victim.run_id for each in closing.resolved] == ["run-y"]
        await look()
        await store.release("y2", (A,))
        await store.release("y1", (B,))
        await store.release("not seen yet", (B,))
        await look()
    assert seen == document_fields()
    in_header = header_fields()
    assert {name: in_header[name] for name in RECORDS} == {name: seen[name] for name in RECORDS}
    assert keys == in_header.keys() == document_keys()


async def test_records_of_version_1_are_read(store: LockStore, valkey: EmbeddedValkey) -> None:
    """A snapshot shows them, a renewal knows them, a release hands over."""
    fixture = json.loads(VERSION_1.read_text())
    async with redis.asyncio.Redis.from_url(valkey.url, decode_responses=True) as client:
        for name in RECORDS:
            await client.hset(KEYS.lock(name), mapping={key: json.dumps(each) for key, each in fixture[name].items()})
        for name in ("queue", "members"):
            await client.zadd(KEYS.lock(name), dict.fromkeys(fixture[name], 0))
        await client.zadd(KEYS.lock("sessions"), dict.fromkeys(fixture["sessions"], (time.time() + 60) * 1000))
        await client.set(KEYS.lock("fence"), fixture["fence"])

    snapshot = await store.snapshot()
    assert [(each.resource, each.owner.run_id, each.token) for each in snapshot.holdings] == [
        (A, "run-x", int(fixture["locks"]["alpha:"]["token"])),
        (B, "run-y", int(fixture["locks"]["beta:key"]["token"])),
    ]
    [wait] = snapshot.waits
    assert (wait.request_id, wait.resource, wait.owner.run_id) == ("x2", B, "run-x")
    assert wait.enclosing_tokens == {snapshot.holdings[0].token}

    renewal = await store.renew("x.0", 60.0, [(A, snapshot.holdings[0].token)], ["x2"], ["x1"])
    assert (renewal.verdict.kind, renewal.gone_tokens, renewal.unknown_requests) == ("renewed", frozenset(), {})
    assert (renewal.waits["x2"].kind, renewal.waits["x2"].waiting_for) == ("queued", B)

    verdict = (await store.withdraw("y2", (A,))).verdict
    assert verdict.kind == "deadlock"
    assert [each.run_id for each in verdict.cycle] == ["run-x", "run-y"]

    assert (await store.release("y1", (B,))).verdict.released == 1
    [(request_id, granted)] = await store.verdicts("x", 1.0) or []
    assert (request_id, granted.kind) == ("x2", "granted")
    assert granted.tokens[0] > int(fixture["fence"])
