"""The usual run of a signature: a user starts it, and it succeeds. Short first parts of two scripts answer it.

They must store what the whole scripts store: one release admits a run, and another one settles it.
"""

import json
import random
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
import redis

from mageflow.config import Settings
from mageflow.signatures import RunIdentity
from mageflow.store import AttemptOutcome, Keys, RedisPort, Store
from mageflow.store.records import declarations
from mageflow.store.records.calls import script_config
from mageflow.store.redis.scripts import Script
from mageflow.testing.valkey import EmbeddedValkey
from tests.flows.admitting import admit

KEYS = Keys("mageflow", "tests").new("task", "0" * 31 + "a")
CONFIG = script_config(Settings(), "task")
DEFINITION = '{"v":1,"kind":"task","task":"Price","kwargs":{"text":"a\\"},{b"}}'
TRACE = f"00-{'0' * 31}1-{'0' * 15}1-01"
FAILURE = '{"type":"ValueError","message":"},{\\"x","task":"","outcome":"failed","attempt":1}'
MAX_COMMANDS = 48
"""Commands of Redis within an admission and a settlement."""


def whole(script: Script) -> str:
    """The source of a script as it answers everything but the usual case."""
    source = script.source
    first, rest = source.index(f"-- The first part of {script.name}:"), source.index("do\n  local function check(")
    assert first < rest
    return source[:first] + source[rest:]


class Scripts:
    """The scripts over one record, with first parts or without. Notes each reply and what is stored then."""

    def __init__(self, client: redis.Redis, *, has_first_parts: bool, is_new: bool = True) -> None:
        if is_new:
            client.flushall()
        self.client = client
        self.steps: list[Any] = []
        self._has_first_parts = has_first_parts

    def call(self, script: Script, *args: str | int) -> Any:
        """Run a script over the record."""
        source = script.source
        if not self._has_first_parts and script.name in {"admit", "settle"}:
            source = whole(script)
        try:
            reply: Any = self.client.eval(source, 9, *KEYS.all(), CONFIG, *args)
        except redis.ResponseError as error:
            reply = re.sub(r"user_script:\d+|script: \w+", "", str(error))
        self.steps.append((_reply(reply), self.stored()))
        return reply

    def create(self, *callbacks: str) -> None:
        """Store the signature."""
        counts = [sum(each.startswith(kind) for each in callbacks) for kind in (".s", ".e")]
        definitions = ["", f"T:{counts[0]}:{counts[1]}|{DEFINITION}"]
        for each in callbacks:
            definitions += [each, f"T:0:0|{DEFINITION}"]
        self.call(declarations.CREATE, "task", '{"name":"Price"}', "ana },{", "[]", *definitions)

    def admit(self, run: str, attempt: int = 1, *, view: str = "", epoch: str = "0", **changed: str) -> Any:
        """Admit an attempt of a user's run."""
        args = {
            "epoch": epoch, "run": f"run-{run}", "task_run": f"step-{run}", "worker": "w", "attempt": str(attempt),
            "input": '{"x":1}', "trace": TRACE, "replay": "", "options": "", "tasks": "\nprice\n", "workflow": "",
            "view": view,
        }  # fmt: skip
        return self.call(declarations.ADMIT, f"@{run}", *{**args, **changed}.values())

    def settle(self, name: str, outcome: str = "succeeded", attempt: int = 1, **changed: str) -> Any:
        """Settle an attempt of a user's run."""
        has_succeeded = outcome == "succeeded"
        args = {
            "run": f"run-{name}", "attempt": str(attempt), "outcome": outcome, "retry": "0",
            "result": '{"y":2}' if has_succeeded else "", "error": "" if has_succeeded else FAILURE, "input": "",
            "trace": TRACE, "stages": '{"body":7,"queue":2}',
        }  # fmt: skip
        return self.call(declarations.SETTLE, f"@{name}", *{**args, **changed}.values())

    def lifecycle(self, action: str) -> None:
        """Suspend, resume or interrupt the signature."""
        self.call(declarations.LIFECYCLE, "", action, "ana", "why", "", "")

    def stored(self) -> dict[str, Any]:
        """What is stored and how long it lives, without the clock."""
        found: dict[str, Any] = {}
        for key in sorted(cast("list[str]", self.client.keys("*"))):
            kind = self.client.type(key)
            if kind == "hash":
                value: Any = {name: _blanked(text) for name, text in cast("Any", self.client.hgetall(key)).items()}
            elif kind == "zset":
                scores = cast("Any", self.client.zrange(key, 0, -1, withscores=True))
                value = {member: round((score / 1000 - time.time()) / 100) for member, score in scores}
            elif kind == "list":
                value = self.client.lrange(key, 0, -1)
            else:  # damaged by a test
                value = self.client.get(key)
            found[key] = (value, round(self.client.ttl(key) / 100))
        return found


def _blanked(text: Any) -> Any:
    """A value without times. JSON objects have no order."""
    if isinstance(text, list):
        return [_blanked(each) for each in cast("list[Any]", text)]
    if not isinstance(text, str):
        return text
    blank = re.sub(r"\b1[789]\d{11}\b", "0", text)
    try:
        return json.loads(blank) if blank[:1] in {"{", "["} else blank
    except ValueError:  # damaged by a test
        return blank


def _reply(reply: Any) -> Any:
    if reply == "settled":
        return ["settled", {}, "", "", "", "", "", []]
    if isinstance(reply, list) and len(reply) == 9 and isinstance(reply[2], list):  # an admission: the header is flat
        flat = reply[2]
        fields = {name: value for name, value in zip(flat[::2], flat[1::2], strict=True) if value not in {"", "0"}}
        reply = [*reply[:2], {name: _blanked(value) for name, value in fields.items()}, *reply[3:]]
    return _blanked(reply)


@pytest.fixture
def client(valkey: EmbeddedValkey) -> Iterator[redis.Redis]:
    """A client of the test's own."""
    with redis.Redis.from_url(valkey.url, decode_responses=True) as client:
        yield client


def both(client: redis.Redis, story: Callable[[Scripts], None]) -> list[Any]:
    """Compare a story with the first parts and without, step by step. Returns the replies with them."""
    with_first, without = Scripts(client, has_first_parts=True), Scripts(client, has_first_parts=False)
    for scripts in (with_first, without):
        client.flushall()
        story(scripts)
    for mine, theirs in zip(with_first.steps, without.steps, strict=True):
        assert mine == theirs
    return [reply for reply, _ in with_first.steps]


def one_after_another(scripts: Scripts) -> None:
    """So many runs that the history and the members are cut."""
    scripts.create()
    for number in range(80):
        scripts.admit(f"r{number}", view="1" if number % 2 else "")
        scripts.settle(f"r{number}")


def side_by_side(scripts: Scripts) -> None:
    """Two runs at once: the signature stays active until the second has ended."""
    scripts.create(".e0")
    scripts.admit("a", options='{"metadata":{"k":"v"}}', view="1")
    scripts.admit("b", input="", epoch="")
    scripts.settle("a", trace="", stages="")
    scripts.admit("c")
    scripts.settle("c", attempt=0)
    scripts.settle("b")


def retried(scripts: Scripts) -> None:
    """An attempt fails, the same one is admitted twice, a stale one ends, the last one succeeds."""
    scripts.create()
    scripts.admit("a")
    scripts.admit("a")
    scripts.settle("a", "failed", retry="3")
    scripts.admit("a", 2)
    scripts.settle("a", attempt=1)
    scripts.settle("a", attempt=2)
    scripts.settle("a", attempt=2)
    scripts.admit("a", 3)


def unusual(scripts: Scripts) -> None:
    """Callbacks, other tasks, other runs, workflows, suspension and damage are for the whole scripts."""
    scripts.create(".s0")
    scripts.admit("a", tasks="\nship\n")
    scripts.admit("a", epoch="1")
    scripts.admit("a", workflow="task")
    scripts.admit("b")
    scripts.settle("b", run="run-x")
    scripts.settle("b")
    scripts.lifecycle("suspend")
    scripts.admit("c")
    scripts.settle("a")
    scripts.lifecycle("resume")
    scripts.admit("c", epoch="")
    scripts.settle("c", "cancelled")
    for field, value in (
        ("history", "[1"), ("history", "{}"), ("attempts", "x"), ("status", "x"), ("status", "done"),
        ("format", "9"), ("format", "1"), ("kept_until_ms", "1"), ("total", "x"),
    ):  # fmt: skip
        scripts.client.hset(KEYS.record, field, value)
        scripts.admit(f"d{field}{value}")
        scripts.settle(f"d{field}{value}")
    scripts.client.hdel(KEYS.record, "total")
    scripts.client.delete(KEYS.definitions)
    scripts.admit("e")


@pytest.mark.parametrize("story", [one_after_another, side_by_side, retried])
def test_the_usual_run_isstored_as_every_other(client: redis.Redis, story: Callable[[Scripts], None]) -> None:
    """Each step stores and answers the same as the whole script does."""
    assert ["settled", {}, "", "", "", "", "", []] in both(client, story)


def test_what_is_not_usual_falls_through(client: redis.Redis) -> None:
    """The first parts change nothing of it. A damaged index is made anew."""
    verdicts = {each[0] if isinstance(each, list) else "error" for each in both(client, unusual)}
    assert {"foreign", "skip", "run", "settled", "stale", "error", "missing"} <= verdicts


def test_a_damaged_index_is_made_anew(client: redis.Redis) -> None:
    """The first part leaves that to the whole script, which notes the damage."""
    for index in (KEYS.due, f"{KEYS.stats}:task:active", f"{KEYS.stats}:task:pending"):

        def story(scripts: Scripts, index: str = index) -> None:
            scripts.create()
            client.delete(index)
            client.set(index, "damage", ex=1000)
            scripts.admit("a")
            scripts.settle("a")

        assert [each[0] for each in both(client, story)[1:]] == ["run", "settled"]
        client.flushall()


@pytest.mark.parametrize("has_first_parts", [True, False], ids=["usual", "whole"])
@pytest.mark.parametrize("is_admitted", [False, True], ids=["admit", "settle"])
@pytest.mark.parametrize("key", ["members", "results", "live", "outbox"])
def test_a_key_of_another_type_ends_the_script_before_it_writes(
    client: redis.Redis, key: str, *, is_admitted: bool, has_first_parts: bool
) -> None:
    """A run that has not ended stays where a reconciler finds it: its header is not done, the index still has it."""
    scripts = Scripts(client, has_first_parts=has_first_parts)
    scripts.create()
    if is_admitted:
        scripts.admit("a")
    client.delete(getattr(KEYS, key))
    client.set(getattr(KEYS, key), "damage", ex=1000)
    before = scripts.stored()
    assert "WRONGTYPE" in (scripts.settle("a") if is_admitted else scripts.admit("a"))
    assert scripts.stored() == before


def test_a_suspended_run_is_not_held_halfway(client: redis.Redis) -> None:
    """What waits for resume has another type: the run is not taken out of the live ones before that is noticed."""
    scripts = Scripts(client, has_first_parts=True)
    scripts.create()
    scripts.lifecycle("suspend")
    client.set(KEYS.held, "damage", ex=1000)
    before = scripts.stored()
    assert "WRONGTYPE" in scripts.admit("a")
    assert scripts.stored() == before


@pytest.mark.parametrize("seed", range(20))
def test_random_stories_are_stored_alike(client: redis.Redis, seed: int) -> None:
    """Admissions, ends and suspensions in random order."""

    def story(scripts: Scripts) -> None:
        chance = random.Random(seed)
        scripts.create(*([] if seed % 2 else [".s0", ".e0"]))
        attempts: dict[str, int] = {}
        for number in range(40):
            run = chance.choice([*attempts, f"r{number}", f"r{number}"])
            match chance.choice(("admit", "admit", "admit", "succeed", "succeed", "succeed", "fail", "suspend")):
                case "admit":
                    attempts[run] = chance.choice((1, attempts.get(run, 0) + 1))
                    scripts.admit(run, attempts[run], view=chance.choice(("", "1")), epoch=chance.choice(("", "0")))
                case "succeed":
                    scripts.settle(run, attempt=chance.choice((0, attempts.get(run, 1))))
                case "fail":
                    retry = chance.choice(("0", "1", "2"))
                    scripts.settle(run, "failed", attempts.get(run, 1), retry=retry, input='{"x":1}')
                case _:
                    scripts.lifecycle(chance.choice(("suspend", "resume", "resume", "resume")))

    both(client, story)


def test_no_run_is_admitted_whose_end_may_be_refused(client: redis.Redis, valkey: EmbeddedValkey) -> None:
    """A user who may not run a command of a settlement, usual or not, gets no run, and changes nothing."""
    scripts = Scripts(client, has_first_parts=True)
    scripts.create()
    before = scripts.steps[-1][1]
    commands = set(re.findall(r"may\('([A-Z]+)'|redis\.p?call\('([A-Z]+)'", declarations.SETTLE.source))
    names = {first or second for first, second in commands}
    assert {"LRANGE", "HKEYS", "HSET"} < names
    lesser = redis.Redis.from_url(valkey.url.replace("redis://", "redis://lesser:secret@"), decode_responses=True)
    try:
        for name in sorted(names):
            client.acl_setuser(
                "lesser", enabled=True, reset=True, passwords=["+secret"], keys=["*"], categories=["+@all"]
            )
            client.execute_command("ACL", "SETUSER", "lesser", f"-{name.lower()}")
            refused = Scripts(lesser, has_first_parts=True, is_new=False)
            refused.stored = scripts.stored  # the other user may look
            assert "permission" in refused.admit("a").lower(), name
            assert scripts.stored() == before, name
    finally:
        lesser.close()
        client.acl_deluser("lesser")


async def test_the_usual_run_takes_few_commands(port: RedisPort, client: redis.Redis) -> None:
    """Commands within both scripts are counted by the server, and what the caller does not need is not sent."""
    store = Store(port, Keys("mageflow", "tests"), Settings())
    Scripts(client, has_first_parts=True).create()

    async def commands(number: int) -> int:
        run = RunIdentity(f"run-{number}", "step", "worker", 1)
        client.config_resetstat()
        admission = await admit(store, KEYS.record, run, input_json="{}", task_names=("price",), wants_signature=False)
        settlement = await store.settle(KEYS.record, run, AttemptOutcome("succeeded", result_json="1"))
        assert (admission.verdict, admission.flow_name, settlement.verdict) == ("run", "Price", "settled")
        own = {"cmdstat_evalsha", "cmdstat_eval", "cmdstat_config|resetstat", "cmdstat_client|setinfo", "cmdstat_hello"}
        stats = client.info("commandstats")
        return sum(each["calls"] for name, each in stats.items() if name not in own)

    await commands(1)
    assert 20 < await commands(2) <= MAX_COMMANDS
