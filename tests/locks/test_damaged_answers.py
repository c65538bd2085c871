"""What the lock scripts answer repeats what is stored. A damaged record is a typed error, or values of their types."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, replace
from typing import Any, cast

import pytest
import redis.asyncio
from pydantic import TypeAdapter

from mageflow.errors import StoreError
from mageflow.interceptors import ResourceKey
from mageflow.store import Keys, LockReply, LockSnapshot, LockStore, LockVerdict
from mageflow.store.locks.replies import parse_reply, parse_snapshot, parse_verdicts
from mageflow.store.redis.port import RedisPort
from mageflow.testing.valkey import EmbeddedValkey
from tests.locks.test_usual_case import claim

LEAVES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0.5,
    1e999,
    10**400,
    "",
    "x",
    "9" * 5000,
    "granted ",
    [],
    {},
    [[]],
    [{}],
    {"a": 1},
)

TYPES: dict[str, TypeAdapter[Any]] = {
    "lock_wake": TypeAdapter(list[tuple[str, LockVerdict]]),
    "lock_snapshot": TypeAdapter(LockSnapshot),
}
OF_A_REPLY: TypeAdapter[Any] = TypeAdapter(LockReply)


class Recording(RedisPort):
    """Keeps the texts that the scripts answer, and those of the wake lists."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.answers: list[tuple[str, str]] = []

    async def call(self, script: Any, keys: Any, args: Any = ()) -> Any:
        reply = await super().call(script, keys, args)
        self.answers.append((script.name, reply))
        return reply

    async def command(self, *args: Any, **more: Any) -> Any:
        reply = await super().command(*args, **more)
        if args[0] == "BLMPOP" and reply:
            self.answers += [("lock_wake", text) for text in reply[1]]
        return reply


def parsed(name: str, text: object) -> Any:
    match name:
        case "lock_wake":
            return parse_verdicts([cast("str", text)])
        case "lock_snapshot":
            return parse_snapshot(text)
        case _:
            return parse_reply(text, name)


def checked(name: str, text: object) -> Any:
    """What the parser makes of an answer, with all its values of their declared types."""
    reply = parsed(name, text)
    plain = [(each, asdict(verdict)) for each, verdict in reply] if name == "lock_wake" else asdict(reply)
    TYPES.get(name, OF_A_REPLY).validate_json(json.dumps(plain, default=list), strict=True)
    return reply


def damaged(document: Any) -> Iterator[str]:
    """The document with each of its values replaced by each leaf, or left out."""
    for container, place in places(document):
        value = container[place]
        inner = damaged(json.loads(value)) if isinstance(value, str) and value.startswith("{") else ()
        for leaf in (*LEAVES, *inner):
            container[place] = leaf
            yield json.dumps(document)
        if isinstance(container, dict):
            del container[place]
            yield json.dumps(document)
        container[place] = value


def places(value: Any) -> list[tuple[Any, Any]]:
    found = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    return [(value, place) for place, _ in found] + [each for _, inner in found for each in places(inner)]


async def every_answer(port: Recording) -> None:
    """Grants, waits, a deadlock, an expired lease, and what a renewal finds."""
    store = LockStore(port, Keys("mageflow", "tests"))
    await store.acquire(claim("r0", "z:1", "old"))
    await store.renew("process.0", 0.001, [], [])
    await asyncio.sleep(0.01)
    first = (await store.acquire(claim("r1", "a:1", "db"))).verdict.tokens[0]
    other = replace(claim("r2", "b:1", "old"), session_id="process.1", wake_id="other")
    second = (await store.acquire(other)).verdict.tokens[0]
    db = ResourceKey("db", "key/ü:1")
    await store.acquire(replace(other, request_id="r3", resources=(db,), enclosing_tokens=(second,)))
    inner = replace(claim("r4", "a:1", "old"), enclosing_tokens=(first,))
    await store.acquire(inner)
    await store.acquire(replace(inner, request_id="r6", policy="youngest", born_ms=1))
    await store.acquire(replace(claim("r5", "c:1", "db"), can_wait=False))
    await store.snapshot()
    await store.renew("process.1", 60.0, [(db, 17)], ["r3", "r9"])
    await store.release("r1", (db,))
    await store.verdicts("other", 1.0)
    await store.end_session("process.1")


@pytest.fixture
async def answers(valkey: EmbeddedValkey) -> list[tuple[str, str]]:
    port = Recording(valkey.url)
    await every_answer(port)
    await port.aclose()
    return port.answers


async def test_every_answer_of_a_damaged_record_is_typed(answers: list[tuple[str, str]]) -> None:
    """Each value of each real answer is damaged in turn."""
    seen: set[str] = set()
    failures: list[str] = []
    for name, text in answers:
        reply = checked(name, text)
        seen |= {name, *(field for field, value in asdict(reply).items() if value)} if name != "lock_wake" else {name}
        if not text.startswith("{"):
            continue
        for changed in damaged(json.loads(text)):
            try:
                checked(name, changed)
            except StoreError:
                pass
            except Exception as error:  # noqa: BLE001 - it is what the test looks for
                failures.append(f"{name}: {type(error).__name__} {str(error)[:200]} for {changed[:300]}")
    assert seen >= {
        "lock_acquire", "lock_release", "lock_renew", "lock_end", "lock_snapshot", "lock_wake", "expired", "resolved",
        "gone_tokens", "waits", "unknown_requests", "holdings",
    }  # fmt: skip
    assert failures == []


@pytest.mark.parametrize("text", ["granted x", "granted " + "9" * 5000, "{}]", "[]", None, 1, '{"a":' * 100000])
@pytest.mark.parametrize("parse", [lambda text: parse_reply(text, "lock"), parse_snapshot])
def test_an_answer_that_is_no_answer_is_a_typed_error(parse: Callable[[Any], Any], text: Any) -> None:
    with pytest.raises(StoreError):
        parse(text)


async def test_a_damaged_wait_stops_no_other_request(store: LockStore, valkey: EmbeddedValkey) -> None:
    """A renewal and a wake list answer for the other requests. The damaged one is gone: it is sent again."""
    for name in ("db", "cache"):
        await store.acquire(claim(f"holds-{name}", "a:1", name))
        waiting = replace(claim(f"waits-{name}", "b:1", name), session_id="process.1", wake_id="other")
        await store.acquire(waiting)
    async with redis.asyncio.Redis.from_url(valkey.url, decode_responses=True) as client:
        waits = Keys("mageflow", "tests").lock("waits")
        record = json.loads(await cast("Awaitable[str]", client.hget(waits, "waits-db")))
        text = json.dumps({**record, "verdict": "granted", "tokens": ["x"]})
        await cast("Awaitable[int]", client.hset(waits, "waits-db", text))
        reply = await store.renew("process.1", 60.0, [], ["waits-db", "waits-cache"])
        assert {name: each.kind for name, each in reply.waits.items()} == {"waits-db": "gone", "waits-cache": "queued"}

        key = f"{Keys('mageflow', 'tests').lock('wake')}:other"
        await cast(
            "Awaitable[int]", client.rpush(key, '{"request_id":"waits-db","verdict":["x"]}', "[]", "{", '{"a":1}')
        )
        await client.pexpire(key, 60_000)
        await store.release("holds-cache", claim("", "", "cache").resources)
    verdicts = await store.verdicts("other", 1.0)
    assert [(name, each.kind) for name, each in verdicts or ()] == [("waits-db", "gone"), ("waits-cache", "granted")]
