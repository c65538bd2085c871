"""``mageflow mcp`` over a real Valkey: signatures, flows, reasons, payloads and errors."""

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from mcp.client import Client

from mageflow.cli.mcp.answers import answer
from mageflow.cli.mcp.tools import TOOL_NAMES
from mageflow.signatures import SwarmConfig
from mageflow.testing import EmbeddedValkey
from mageflow.testing.ports import free_port
from tests.cli.mcp.assistant import Assistant, assistant
from tests.cli.stored_flows import StoredFlows
from tests.started_program import StartedProgram

NO_WORKER = {"MAGEFLOW_METRICS_PORT": "1", "MAGEFLOW_METRICS_PORT_SPAN": "1"}


@pytest.fixture
def options(mageflow_redis: EmbeddedValkey) -> tuple[str, ...]:
    """What leads the server to the flows of this test, and to no worker."""
    return ("--redis-url", mageflow_redis.url, "--namespace", "prod", "--metrics", "http://127.0.0.1:1/metrics")


async def test_tools_are_offered_as_read_only(mageflow_redis: EmbeddedValkey, options, tmp_path: Path) -> None:
    """Every tool says what it does and what its arguments are. Nothing is printed beside the protocol."""
    async with assistant(tmp_path / "err", *options) as model:
        tools = (await model.client.list_tools()).tools
        assert tuple(each.name for each in tools) == TOOL_NAMES
        for each in tools:
            assert each.annotations.read_only_hint
            assert each.annotations.destructive_hint is False
            assert each.description.endswith(".")
            assert all("description" in value for value in each.input_schema["properties"].values()), each.name
        assert "left_out" in model.client.instructions
        assert len(json.dumps([each.model_dump(mode="json", exclude_none=True) for each in tools])) < 8000
    assert (tmp_path / "err").read_text() == ""


async def test_signatures_are_listed_and_shown_with_history(stored: StoredFlows, options, tmp_path: Path) -> None:
    """The same documents as of the commands. What the limit leaves out is counted, with how to get it."""
    chain = await stored.flows.creation.chain(["add", "fail", "add"], name="billing", error="callback")
    await stored.flows.start(chain, {"n": 5})
    await stored.worker.drain()
    for _ in range(3):
        await stored.flows.creation.sign("add")
    async with assistant(tmp_path / "err", *options) as model:
        listed = await model.call("list_signatures", limit=1)
        assert len(listed["signatures"]) == 1
        assert listed["left_out"]["signatures"]["items"] == listed["matches"] - 1 == 3
        assert "raise limit" in listed["left_out"]["signatures"]["how"]
        failed = await model.call("list_signatures", status="failed")
        assert [each["key"] for each in failed["signatures"]] == [chain.key]
        assert "left_out" not in failed
        shown = await model.call("show_signature", key=chain.key, limit=2)
        assert (shown["status"], shown["progress"]) == ("failed", {"step": 1, "steps": 3})
        assert [each["status"] for each in shown["history"]] == ["pending", "active", "failed"]
        assert shown["left_out"]["members"] == {"items": 1, "how": "call again with first=2, or a lower limit"}
        rest = await model.call("show_signature", key=chain.key.rpartition(":")[2], first=2)
        assert next(each["path"] for each in rest["members"]) == "2"
        tree = await model.call("show_flow", key=chain.key)
        assert [(each["path"], each["status"]) for each in tree["members"]][:2] == [("0", "done"), ("1", "failed")]
        assert [each["key"] for each in (await model.call("list_flows"))["flows"]] == [chain.key]


@pytest.mark.parametrize("flag", [(), ("--no-payloads",)])
async def test_payloads_are_shown_on_request_only(stored: StoredFlows, options, tmp_path: Path, flag) -> None:
    """Neither bound values nor messages of exceptions, unless requested; with the flag of the server never."""
    signature = await stored.flows.creation.sign("add", n="s3cret-value")
    chain = await stored.flows.creation.chain(["fail", "add"])
    await stored.flows.start(chain)
    await stored.worker.drain()
    async with assistant(tmp_path / "err", *options, *flag) as model:
        texts = [
            (await model.text(tool, **arguments))[1]
            for key in (signature.key, chain.key)
            for tool, arguments in (
                ("show_signature", {"key": key}),
                ("show_flow", {"key": key}),
                ("why_is_it_waiting", {"key": key}),
                ("list_signatures", {}),
                ("list_flows", {}),
                ("metrics_summary", {}),
            )
        ]
        assert [each for each in texts if "s3cret-value" in each or "no good" in each] == []
        values = await model.call("show_signature", key=signature.key, include_payloads=True)
        failed = await model.call("show_signature", key=chain.key, include_payloads=True)
        assert failed["error"]["type"] == "ValueError"
        if flag:
            assert "values" not in values
            assert "message" not in failed["error"]
            assert "--no-payloads" in values["payloads"]
        else:
            assert values["values"] == {"n": "s3cret-value"}
            assert failed["error"]["message"] == "no good"
            assert "include_payloads=true" in (await model.call("show_signature", key=signature.key))["payloads"]


async def test_why_a_stored_flow_does_not_go_on(stored: StoredFlows, options, tmp_path: Path) -> None:
    """Not started, suspended, not sent, without a worker, open, without a place, ended: each is one sentence."""
    creation = stored.flows.creation
    signature = await creation.sign("add")
    suspended = await creation.chain(["add", "add"], name="loud")
    await stored.flows.start(suspended)
    await stored.flows.lifecycle.suspend(suspended.key, by="ada", why="too loud")
    sent = await creation.chain(["add", await creation.chain(["add", "add"])])
    await stored.flows.start(sent)
    crowd = await creation.swarm(["add"] * 5, "crowd", SwarmConfig(max_concurrency=2))
    await stored.flows.start(crowd)
    await stored.flows.drain()  # what was sent is acknowledged
    async with assistant(tmp_path / "err", *options) as model:
        [(what, sentence)] = await model.whys(signature.key)
        assert (what, "waits for a start" in sentence) == ("start", True)
        [(what, sentence)] = await model.whys(suspended.key)
        assert what == "resume"
        assert "suspended by ada" in sentence
        assert "too loud" in sentence
        [(what, sentence)] = await model.whys(sent.key)
        assert (what, "no worker is read here" in sentence) == ("worker", True), sentence
        reasons = await model.whys(crowd.key)
        assert [what for what, _ in reasons] == ["worker", "worker", "place"]
        assert "waits for a place for 3 items: 2 run, and at most 2 run at once" in reasons[-1][1]

        await stored.worker.drain()
        [(what, sentence)] = await model.whys(crowd.key)
        assert (what, "a swarm ends when it is closed" in sentence) == ("close", True)
        [(what, sentence)] = await model.whys(sent.key)
        assert (what, "has ended: done" in sentence) == ("nothing", True)


async def test_errors_are_one_sentence(stored: StoredFlows, options, tmp_path: Path) -> None:
    """Of a wrong key, argument, name or combination, and without a traceback on stderr."""
    async with assistant(tmp_path / "err", *options) as model:
        assert "no signature is stored under 'feed'" in await model.error("show_signature", key="feed")
        assert "no signature is stored under 'feed'" in await model.error("why_is_it_waiting", key="feed")
        assert "did you mean 'status'?" in await model.error("list_signatures", statu="failed")
        assert "wrong arguments: limit: Input should be" in await model.error("list_signatures", limit=5000)
        assert "exclude each other" in await model.error("list_signatures", task="a", flow="b")
    assert "Traceback" not in (tmp_path / "err").read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--redis-url", "redis://127.0.0.1:1/0"), "could not be reached"),
        ((), "no Redis is named: start the server with --redis-url"),
    ],
)
async def test_without_redis_the_server_answers(tmp_path: Path, arguments, sentence) -> None:
    """A tool that needs Redis says so; the others work, and say what they could not read."""
    async with assistant(tmp_path / "err", *arguments, environment=NO_WORKER) as model:
        for tool in ("list_signatures", "list_locks"):
            assert sentence in await model.error(tool)
        problems = (await model.call("metrics_summary"))["problems"]
        assert any("no worker serves metrics here" in each for each in problems)


async def test_answers_have_a_bounded_length(stored: StoredFlows, options, tmp_path: Path) -> None:
    """Items go, counted, and a long payload is cut."""
    items = [await stored.flows.creation.sign("add", n="x" * 5000) for _ in range(60)]
    swarm = await stored.flows.creation.swarm(items, "long")
    async with assistant(tmp_path / "err", *options, "--max-characters", "5000") as model:
        for payloads in (False, True):
            text = (await model.text("show_signature", key=swarm.key, limit=200, include_payloads=payloads))[1]
            shown = json.loads(text)
            assert 1000 < len(text) <= 5000
            assert len(shown["members"]) + shown["left_out"]["members"]["items"] == 60
        assert "more characters)" in text
        flows = (await model.text("list_signatures", limit=200))[1]
        assert len(flows) <= 5000


@pytest.fixture
async def served(options: tuple[str, ...], tmp_path: Path) -> AsyncIterator[str]:
    """The address of the server over HTTP."""
    port = free_port()
    command = [sys.executable, "-m", "mageflow", "mcp", "--http", str(port), *options]
    with StartedProgram(command) as run:
        assert run.line() == f"http://127.0.0.1:{port}/mcp (Ctrl-C ends it)\n"
        await run.listens(port)  # it prints its address a moment before it listens
        yield f"http://127.0.0.1:{port}/mcp"


@pytest.mark.slow
async def test_http_is_served_on_loopback(stored: StoredFlows, served: str) -> None:
    """The same tools, for clients of this machine."""
    signature = await stored.flows.creation.sign("add")
    async with Client(served) as client:
        found = await Assistant(client).call("list_signatures")
    assert [each["key"] for each in found["signatures"]] == [signature.key]


@pytest.mark.parametrize("most", [1000, 2000, 12000])
def test_an_answer_fits_and_counts_what_it_leaves_out(most: int) -> None:
    """Lists in lists, long texts and long keys; the outer list goes first."""
    inner = {"name": "n" * 300, "members": [{"path": str(n), "error": "e" * 90} for n in range(30)]}
    document = {"flows": [inner] * 20, "k" * 2000: "v", "note": "t" * 3000}
    text = answer(document, most, {"flows": "raise limit"})
    found = json.loads(text)
    assert len(text) <= most
    assert len(found["flows"]) + found["left_out"]["flows"]["items"] == 20
    assert found["left_out"]["flows"]["how"] == "raise limit"
    assert answer({"a": [1, 2]}, most, {}) == '{"a": [1, 2]}'


def test_a_missing_extra_is_one_line(monkeypatch, capsys) -> None:
    """Status 2, and the command that installs it."""
    from mageflow.cli import main
    from mageflow.distribution import installs

    monkeypatch.setattr("mageflow.cli.extras.find_spec", lambda module: None if module == "mcp" else object())
    with pytest.raises(SystemExit) as ended:
        main(["mcp"])
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert printed.err == f"mageflow: mageflow mcp needs an extra: {installs('mcp')}\n"
