"""Runs each script twice: with the short first part that answers the usual case, and without it on a second database.

Both must answer the same and leave the same behind: one release of the scripts admits a run, and another one ends it.
"""

import json
import random
import re
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, cast

import redis

from mageflow.store import RedisPort, Script
from mageflow.store.redis.refusals import as_store_error
from mageflow.store.redis.round_trips import _text
from tests.store.fuzz import VALUES, _document, _with_leaf

CLOCK: Final = "test:clock"
TTL_SLACK_MS: Final = 1000
"""Beside the time between the two calls: a busy machine pauses there."""
_FIRST_PARTS: Final = {"admit", "settle", "lock_acquire", "lock_release"}
TYPES: Final[dict[str, tuple[str, ...]]] = {
    "hash": ("HSET", "a", "b"), "zset": ("ZADD", "1", "a"), "list": ("RPUSH", "a"), "string": ("SET", "a"),
}  # fmt: skip
_ONLY_FOR_SCRIPTS: Final = {"message", "message_set", "parent_value", "options", "failed_input"}

_READ: Final = (
    "local read = {hash = {'HGETALL'}, zset = {'ZRANGE', 0, -1, 'WITHSCORES'}}\n"
    "read.list, read.string = {'LRANGE', 0, -1}, {'GET'}\n"
    "local found = {}\n"
    "for _, key in ipairs(redis.call('KEYS', '*')) do\n"
    f"  if key ~= '{CLOCK}' then\n"
    "    local kind = redis.call('TYPE', key)['ok']\n"
    "    local command = {unpack(read[kind])}\n"
    "    table.insert(command, 2, key)\n"
    "    found[#found + 1] = {key, kind, redis.call('PTTL', key), redis.call(unpack(command))}\n"
    "  end\n"
    "end\n"
    "return found\n"
)

_PASS: Final = (
    f"redis.call('HSET', '{CLOCK}', 'seconds', ARGV[1], 'microseconds', ARGV[2])\n"
    "for _, key in ipairs(redis.call('KEYS', '*')) do\n"
    "  local left = redis.call('PTTL', key)\n"
    f"  if key ~= '{CLOCK}' and left > 0 then redis.call('PEXPIRE', key, left - ARGV[3]) end\n"
    "end\n"
)


_Found = dict[str, tuple[str, int, Any]]
"""By key: type, milliseconds to live, and value."""


def without_first_part(script: Script) -> str:
    """The source of a script as it answers everything but the usual case."""
    source = script.source
    if script.name.startswith("lock_"):
        return source[source.index("-- The keys that lib_lock wants") :]
    first, rest = source.index(f"-- The first part of {script.name}:"), source.index("do\n  local function check(")
    assert first < rest
    return source[:first] + source[rest:]


class TwoTexts(RedisPort):
    """A port whose scripts run on two databases of one server. The clock of the scripts moves when a test moves it.

    Attributes:
        differences: Where the two differed, first of all the script.
        answered: How many calls each first part has answered by itself.
    """

    def __init__(self, url: str) -> None:
        super().__init__(None)
        server = url.rpartition("/")[0]
        self.with_first, self.without = (redis.Redis.from_url(f"{server}/{number}") for number in (0, 1))
        self.differences: list[str] = []
        self.answered: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.history: list[tuple[str, Sequence[Any], Any]] = []
        self._loaded: dict[tuple[str, bool], str] = {}
        self._read = cast("str", self.with_first.script_load(_READ))  # both databases are of one server
        self.now_us = 0
        self._lag_ms = 0

    def _both(self) -> tuple[redis.Redis, redis.Redis]:
        return self.with_first, self.without

    def begin(self) -> None:
        """Empty both databases and set the clock."""
        self.differences.clear()
        self.history.clear()
        for each in self._both():
            each.flushdb()
        self.now_us = int(time.time() * 1e6)
        self.let_pass(0)

    def let_pass(self, microseconds: int) -> None:
        """Move the clock, and the ends of all keys with it."""
        self.now_us += microseconds
        for each in self._both():
            each.eval(_PASS, 0, self.now_us // 10**6, self.now_us % 10**6, microseconds // 1000)

    @property
    def is_configured(self) -> bool:
        return True

    async def aclose(self) -> None:
        for each in self._both():
            each.close()

    async def blocking_seconds(self, wanted: float) -> float:
        return min(wanted, 0.01)

    def is_timeout(self, error: Exception) -> bool:
        return False

    async def call(self, script: Script, keys: Sequence[str], args: Sequence[Any] = ()) -> Any:
        """Run both texts of a script. Returns the answer of the one with the first part."""
        script.check(keys, args)
        replies: list[Any] = []
        found: list[_Found] = []
        self.now_us += 1500
        started = time.monotonic()
        for client, has_first_part in zip(self._both(), (True, False), strict=True):
            pipe = client.pipeline(transaction=False)
            pipe.hset(CLOCK, mapping={"seconds": self.now_us // 10**6, "microseconds": self.now_us % 10**6})
            pipe.evalsha(self._sha(client, script, has_first_part=has_first_part), len(keys), *keys, *args)
            pipe.evalsha(self._read, 0)
            _, reply, read = pipe.execute(raise_on_error=False)
            replies.append(_text(reply))
            found.append(_snapshot(read))
        self._lag_ms = max(self._lag_ms, round((time.monotonic() - started) * 1000))
        mine, theirs = replies
        self.calls[script.name] += 1
        self.answered[script.name] += is_usual(mine)
        self.history.append((script.name, args, mine))
        self._compare(script.name, mine, theirs)
        self._compare_stored(script.name, *found)
        if isinstance(mine, redis.RedisError):
            raise as_store_error(script.name, mine) from mine
        return mine

    async def command(self, *command: Any, operation: str = "") -> Any:
        """Run a command on both databases."""
        replies: list[Any] = []
        started = time.monotonic()
        for client in self._both():
            try:
                replies.append(_text(client.execute_command(*command)))
            except redis.RedisError as error:
                replies.append(error)
        self._lag_ms = max(self._lag_ms, round((time.monotonic() - started) * 1000))
        if isinstance(replies[0], redis.RedisError):
            raise as_store_error(operation or str(command[0]), replies[0]) from replies[0]
        return replies[0]

    def stored(self) -> dict[str, tuple[str, Any]]:
        """What the first database holds: type and value of each key."""
        return {
            key: (kind, value) for key, (kind, _, value) in _snapshot(self.with_first.evalsha(self._read, 0)).items()
        }

    def _sha(self, client: redis.Redis, script: Script, *, has_first_part: bool) -> str:
        where = (script.name, has_first_part)
        if where not in self._loaded:
            is_short = has_first_part or script.name not in _FIRST_PARTS
            source = script.source if is_short else without_first_part(script)
            source = source.replace("redis.call('TIME')", f"redis.call('HMGET', '{CLOCK}', 'seconds', 'microseconds')")
            self._loaded[where] = cast("str", client.script_load(source))
        return self._loaded[where]

    def _compare(self, name: str, mine: Any, theirs: Any) -> None:
        if mine != theirs and (left := plain_reply(name, mine)) != (right := plain_reply(name, theirs)):
            self.differences.append(f"{name} answers {left!r}, without its first part {right!r}")

    def _compare_stored(self, name: str, one: "_Found", two: "_Found") -> None:
        if one.keys() != two.keys():
            more, less = (
                {key: each[key] for key in each.keys() - other.keys()} for each, other in ((one, two), (two, one))
            )
            self.differences.append(f"{name} keys {more} / {less}")
        for key in sorted(one.keys() & two.keys()):
            (kind, ttl, value), (other_kind, other_ttl, other_value) = one[key], two[key]
            if (kind, value) != (other_kind, other_value):
                left, right = (kind, _plain(value)), (other_kind, _plain(other_value))
                if left != right:
                    self.differences.append(f"{name} {key}: {_only_in(left, right)} / {_only_in(right, left)}")
            if abs(ttl - other_ttl) > TTL_SLACK_MS + self._lag_ms:
                self.differences.append(f"{name} TTL of {key}: {ttl} / {other_ttl}")


def is_usual(reply: Any) -> bool:
    """Whether a first part has answered. The header of an admission that the caller does not show is short then."""
    if isinstance(reply, str):
        return reply in ("settled", "ended") or reply.startswith("granted ")
    return isinstance(reply, list) and len(cast("list[Any]", reply)) == 9 and reply[2][::2] == ["name"]


def plain_reply(name: str, reply: Any) -> Any:
    """A reply as its readers understand it: some first parts answer with a word where the whole script has JSON."""
    if isinstance(reply, Exception):
        return re.sub(r"user_script:\d+: |,? script:.*", "", str(reply))
    if reply == "settled":
        return ["settled", {}, "", "", "", "", "", []]
    if name.startswith("lock_") and isinstance(reply, str):
        return _lock_reply(reply)
    if name == "admit" and isinstance(reply, list) and len(cast("list[Any]", reply)) == 9:
        flat = reply[2]
        fields = {
            field: _plain(value) for field, value in zip(flat[::2], flat[1::2], strict=True) if value not in {"", "0"}
        }
        fields = {field: value for field, value in fields.items() if field not in _ONLY_FOR_SCRIPTS}
        reply = [*reply[:2], fields, *reply[3:]]
    if name == "load" and isinstance(reply, list) and isinstance(reply[0], list):  # a hash has no order
        reply = [dict(zip(reply[0][::2], reply[0][1::2], strict=True)), *reply[1:]]
    return _plain(reply)


def _lock_reply(reply: str) -> Any:
    word, _, token = reply.partition(" ")
    if word == "granted":
        return {"verdict": "granted", "tokens": [token]}
    if word == "ended":
        return {"verdict": "ended", "released": 1}
    document = json.loads(reply)
    document.pop("now_ms")
    return document


def _snapshot(read: Any) -> _Found:
    found: _Found = {}
    for key, kind, ttl, value in _text(read):
        is_paired = kind in ("hash", "zset")
        found[key] = (kind, ttl, dict(zip(value[::2], value[1::2], strict=True)) if is_paired else value)
    return found


def _plain(value: Any) -> Any:
    """A value whose JSON texts are read: an object has no order."""
    if isinstance(value, list):
        return [_plain(each) for each in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in cast("dict[str, Any]", value).items()}
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return json.loads(value.replace("\\x", "\\\\x"))  # a byte that is no text
        except (ValueError, RecursionError):
            return value
    return value


def _only_in(one: tuple[str, Any], two: tuple[str, Any]) -> Any:
    if one[0] == two[0] and isinstance(one[1], dict):
        return {name: value for name, value in one[1].items() if two[1].get(name) != value}
    return one


async def damage_one(port: "TwoTexts", chance: random.Random) -> None:
    """Change one place of what is stored, in both databases."""
    stored = port.stored()
    if not stored:
        return
    key = chance.choice(sorted(stored))
    kind, value = stored[key]
    how = chance.random()
    if how < 0.4:
        await port.command("DEL", key)
        if how < 0.3:
            command, *rest = TYPES[chance.choice(sorted(TYPES))]
            await port.command(command, key, *rest)
            await port.command("EXPIRE", key, 5000)
    elif kind == "hash":
        await _damage_hash(port, chance, key, value)
    elif kind == "zset":
        member = chance.choice(sorted(value))
        score = chance.choice((-1, 0, "inf", "-inf", 1e300, 5))
        await port.command(*chance.choice((("ZREM", key, member), ("ZADD", key, score, member))))
    elif kind == "list":
        await port.command("LSET", key, 0, chance.choice(VALUES) or "x")


async def _damage_hash(port: "TwoTexts", chance: random.Random, key: str, value: dict[str, str]) -> None:
    name = chance.choice(sorted(value))
    how = chance.random()
    if how < 0.2:
        await port.command("HDEL", key, name)
    elif how < 0.6 and (document := _document(value[name])):
        await port.command("HSET", key, name, _with_leaf(chance, document))
    elif how < 0.7:
        await port.command("HSET", key, name, value[name][: chance.randrange(len(value[name]) + 1)])
    else:
        await port.command("HSET", key, name, chance.choice(VALUES))
