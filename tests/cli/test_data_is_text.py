"""What a command prints from Redis is text: no markup is interpreted and no control character reaches the terminal."""

import json
import re
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mageflow.cli import group
from mageflow.cli.locks import locks
from mageflow.interceptors import ResourceKey
from mageflow.store import Keys, LockClaim, LockOwner, LockStore, RedisPort
from tests.cli.stored_flows import StoredFlows, add

HOSTILE = {
    "escape sequences": "\x1b[31mred\x1b]0;title\x07\x1b[2J",
    "markup": "[/nope] [red]x[/red] [link=http://evil]l[/link] :warning:",
    "lines": "a\nb\rc\vd\x85e\u2028f\tg",
    "C1 controls": "\x9b31mred\x9d0;title\x9c",
    "direction": "\u202eevil\u2066\u200f",
}
NOT_UTF_8 = "\ud83d and \udcff"
"""Lone surrogates: Redis cannot hold them, a command line can."""
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


@pytest.fixture(params=HOSTILE.values(), ids=HOSTILE)
def hostile(request: pytest.FixtureRequest) -> str:
    return request.param


def visible(text: str) -> str:
    """How a command shows the text: every control character as an escape."""
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}

    def escape(found: re.Match[str]) -> str:
        code = ord(found[0])
        return named.get(found[0]) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")

    return re.sub(CONTROL.pattern.replace("\x09\x0b", "\x09\n\x0b"), escape, text)


@pytest.fixture(autouse=True)
def wide_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row of a table is one line, so that a line break in the data is seen."""
    for command in ("inspect.command", "locks"):
        monkeypatch.setattr(import_module(f"mageflow.cli.{command}"), "PIPE_WIDTH", 3000)


async def test_a_flow_with_hostile_values_is_shown_as_text(
    stored: StoredFlows, inspected: Callable[..., Any], hostile: str
) -> None:
    """Names, tasks, error, history, identifiers, run, worker and trace ids and bound values are shown escaped."""
    name = f"task {hostile}"

    async def failing(_: dict[str, Any]) -> None:
        raise type(f"Error{hostile}", (Exception,), {})(f"message {hostile}")

    stored.tasks.update({name: failing, f"callback {hostile}": add})
    chain = await stored.flows.creation.chain(
        [name, "add"], name=f"flow {hostile}", error=f"callback {hostile}", v=hostile
    )
    await stored.flows.start(chain, {"n": 5})
    await stored.worker.drain()

    done = await inspected(chain.key, "--values")

    assert done.exit_code == 0, done.output
    assert CONTROL.search(done.output) is None
    for expected in (f"flow {hostile}", f"task {hostile}", f"callback {hostile}", f"message {hostile}"):
        assert visible(expected) in done.output, done.output
    document = await inspected(chain.key, "--json", "--values")
    assert CONTROL.search(document.output) is None
    assert document.output.count("\n") == 1
    read = json.loads(document.output)
    assert read["name"] == f"flow {hostile}"
    assert read["members"][0]["task"] == name
    assert read["values"] == {"v": hostile}


async def test_a_signature_with_hostile_values_is_shown_as_text(
    stored: StoredFlows, inspected: Callable[..., Any], hostile: str
) -> None:
    """Identifiers, who suspended it and why."""
    signature = await stored.flows.creation.sign("add", task_identifiers={hostile: hostile}, n=hostile)
    await stored.flows.lifecycle.suspend(signature.key, by=f"by {hostile}", why=f"why {hostile}")

    done = await inspected(signature.key, "--values")

    assert done.exit_code == 0, done.output
    assert CONTROL.search(done.output) is None
    for expected in (f"by {hostile}", f"why {hostile}"):
        assert visible(expected) in done.output, done.output
    document = await inspected(signature.key, "--json")
    assert CONTROL.search(document.output) is None
    assert json.loads(document.output)["progress"]["identifiers"] == {hostile: hostile}


@pytest.fixture
def shown(mageflow_redis: Any) -> Callable[..., Result]:
    """Runs ``mageflow locks`` with the server's URL."""

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(locks, [*arguments, "--redis-url", mageflow_redis.url], catch_exceptions=False)

    return run


def lock_of(hostile: str) -> str:
    """A resource name: it has no colon."""
    return f"lock {hostile}".replace(":", "")


@pytest.fixture
async def held(mageflow_redis: Any, hostile: str) -> str:
    """One run holds a lock and two wait for it; everything they say of themselves is hostile."""
    port = RedisPort(mageflow_redis.url)
    store = LockStore(port, Keys("mageflow", ""))
    for number in range(3):
        owner = LockOwner(
            task=f"task {hostile}", run_id=f"run {number} {hostile}", task_run_id=hostile, attempt=1, worker=hostile,
            trace_id=f"trace {hostile}",
        )  # fmt: skip
        claim = LockClaim(
            request_id=f"q{number}", attempt_id=f"attempt-{number}", session_id="session", session_is_open=number > 0,
            resources=(ResourceKey(lock_of(hostile), f"key {hostile}"),), owner=owner, lease_seconds=60, wake_id="w",
        )  # fmt: skip
        await store.acquire(claim)
    await port.aclose()
    return hostile


def test_locks_with_hostile_values_are_shown_as_text(held: str, shown: Callable[..., Result]) -> None:
    """Locks, keys, tasks, runs, workers and traces of holders and waiters are shown escaped, in one row each."""
    done = shown("--raw-keys")

    assert done.exit_code == 0, done.output
    assert CONTROL.search(done.output) is None
    for expected in (lock_of(held), f"key {held}", f"task {held}", f"run 0 {held}", f"run 2 {held}", f"trace {held}"):
        assert visible(expected) in done.output, done.output
    assert "1 held, 2 waiting" in done.output
    assert len(done.output.splitlines()) == 12, done.output
    document = shown("--raw-keys", "--json")
    assert CONTROL.search(document.output) is None
    read = json.loads(document.output)
    assert read["holders"][0]["resource"] == f"key {held}"
    assert [each["task"] for each in read["waiters"]] == [f"task {held}"] * 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect", "{}"],
        ["inspect", "mageflow:{{/1}}:chain:{}"],
        ["inspect", "x", "--redis-url", "{}://"],
        ["locks", "{}"],
        ["{}"],
    ],
    ids=["id", "key", "url", "argument", "command"],
)
@pytest.mark.parametrize("hostile", [*HOSTILE.values(), NOT_UTF_8], ids=[*HOSTILE, "not UTF-8"])
def test_errors_with_hostile_values_are_text(
    hostile: str, arguments: list[str], mageflow_redis: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """An error message shows the arguments as text, and prints no traceback."""
    monkeypatch.setenv("MAGEFLOW_REDIS_URL", mageflow_redis.url)

    with pytest.raises(SystemExit) as ended:
        group.main([each.format(hostile) for each in arguments])

    printed = capsys.readouterr()
    assert ended.value.code in (1, 2)
    assert CONTROL.search(printed.err) is None
    assert "Traceback" not in printed.err
    assert printed.out == ""
