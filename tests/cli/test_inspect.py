"""``mageflow inspect`` shows what flows have stored in a real Valkey."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from mageflow.cli import group
from mageflow.cli.console import DataConsole
from mageflow.cli.inspect.tables import draw
from mageflow.signatures import SwarmConfig
from mageflow.store import describe_record
from tests.cli.stored_flows import StoredFlows


async def document(inspected: Any, *arguments: str) -> dict[str, Any]:
    result = await inspected(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


async def test_a_failed_chain_shows_step_error_and_runs(stored: StoredFlows, inspected: Any) -> None:
    """Status, steps in order, the error beside its step, run ids, callbacks, history and TTL are those of the store."""
    chain = await stored.flows.creation.chain(["add", "fail", "add"], name="billing", error="callback")
    await stored.flows.start(chain, {"n": 5})
    await stored.worker.drain()
    found = await document(inspected, chain.key)

    assert (found["key"], found["kind"], found["name"], found["status"]) == (chain.key, "chain", "billing", "failed")
    assert found["progress"] == {"step": 1, "steps": 3}
    assert [(each["path"], each["status"]) for each in found["members"]] == [
        ("0", "done"), ("1", "failed"), ("2", "pending"), (".e0", "done"),
    ]  # fmt: skip
    assert [each["attempts"] for each in found["members"]] == [1, 1, 0, 1]
    runs = {each["path"]: each["run"] and each["run"]["workflow_run_id"] for each in found["members"]}
    assert runs["2"] is None
    assert {runs["0"], runs["1"], runs[".e0"]} == set(stored.hatchet.runs)
    error = found["members"][1]["error"]
    assert (error["type"], error["message"], error["task"], error["attempt"]) == ("ValueError", "no good", "fail", 1)
    assert found["error"] == error
    assert [each["status"] for each in found["history"]] == ["pending", "active", "failed"]
    assert found["members"][3]["role"] == "error callback"
    assert 0 < found["expires_in_s"] <= 3600
    assert found["started_at"] <= found["ended_at"] <= found["at"]
    assert found["delivery"]["live"] == 0

    drawn = (await inspected(chain.key)).output
    for expected in (
        "chain billing  failed",
        "1 of 3 steps",
        "ValueError: no good (fail, attempt 1, failed)",
        runs["1"],
    ):
        assert expected in drawn
    assert re.search(r"^  on error +callback +done", drawn, re.MULTILINE)


async def test_a_swarm_shows_its_counts_and_a_page_of_its_items(stored: StoredFlows, inspected: Any) -> None:
    """Items are paged by number, with a line about the rest. A nested flow is shown by its key."""
    inner = await stored.flows.creation.chain(["add", "add"])
    items: list[object] = [await stored.flows.creation.sign("odd", n=index) for index in range(9)]
    swarm = await stored.flows.creation.swarm([*items, inner], "crowd", SwarmConfig(max_concurrency=3), closed=True)
    assert (await document(inspected, swarm.key))["status"] == "pending"
    await stored.flows.start(swarm)
    await stored.worker.drain()

    found = await document(inspected, swarm.key, "--first", "6", "--limit", "2")
    assert [(each["path"], each["status"], each["role"]) for each in found["members"]] == [
        ("6", "failed", "item"), ("7", "done", "item"),
    ]  # fmt: skip
    assert found["members_total"] == 10
    last = (await document(inspected, swarm.key, "--first", "9"))["members"][0]
    assert (last["flow"], last["task"], last["run"]) == (inner.key, "", None)
    assert (await document(inspected, inner.key))["parent"] == f"{swarm.key}#9"
    drawn = (await inspected(swarm.key, "--limit", "4")).output
    assert f"{found['progress']['succeeded']} succeeded, {found['progress']['failed']} failed" in drawn
    assert "6 more: --first 4" in drawn


async def test_a_suspended_chain_shows_who_suspended_it_and_why(stored: StoredFlows, inspected: Any) -> None:
    """The history has the person and the reason, and the held step is counted."""
    chain = await stored.flows.creation.chain(["add", "add"])
    await stored.flows.start(chain)
    await stored.flows.lifecycle.suspend(chain.key, by="ada", why="too loud")
    await stored.worker.drain()
    found = await document(inspected, chain.key)

    assert found["status"] == "suspended"
    assert (found["history"][-1]["by"], found["history"][-1]["why"]) == ("ada", "too loud")
    assert found["delivery"]["held"] == 1
    assert found["members"][0]["stage"] == "held"
    assert "too loud" in (await inspected(chain.key)).output


async def test_a_signature_hides_bound_values_unless_asked(stored: StoredFlows, inspected: Any) -> None:
    """Identifiers and callbacks are shown. Bound values are shown only with ``--values``."""
    signature = await stored.flows.creation.sign(
        "add", task_identifiers={"order": 17}, success_callbacks=["callback"], n="s3cret"
    )
    before = await document(inspected, signature.key)
    assert (before["status"], [each["path"] for each in before["members"]]) == ("pending", [".s0"])
    assert before["progress"]["identifiers"] == {"order": 17}
    assert "s3cret" not in (await inspected(signature.key)).output + (await inspected(signature.key, "--json")).output
    assert (await document(inspected, signature.key, "--values"))["values"] == {"n": "s3cret"}
    assert "s3cret" in (await inspected(signature.key, "--values")).output


async def test_a_member_and_an_id_are_found(stored: StoredFlows, inspected: Any) -> None:
    """``KEY#path`` shows the member with its callbacks. The id of logs and spans is found in its namespace."""
    chain = await stored.flows.creation.chain(
        [await stored.flows.creation.sign("add", success_callbacks=["callback"]), "add"]
    )
    step = await document(inspected, f"{chain.key}#0")
    assert [each["path"] for each in step["members"]] == ["0", "0.s0"]
    identity = chain.key.rpartition(":")[2]
    assert (await document(inspected, identity, "--namespace", "Prod"))["key"] == chain.key
    assert (await document(inspected, f"{identity}#1", "--namespace", "prod_"))["key"] == f"{chain.key}#1"


async def test_inspect_changes_nothing(stored: StoredFlows, inspected: Any) -> None:
    """No TTL is refreshed and no key is written: a dump of the server before and after is the same."""
    chain = await stored.flows.creation.chain(["add", "add"])
    await stored.port.command("EXPIRE", chain.key, 500)

    script = (
        "local found = {} for i, key in ipairs(redis.call('KEYS', '*')) do "
        "found[i] = key .. ' ' .. redis.sha1hex(redis.call('DUMP', key)) end return found"
    )

    async def dump() -> list[str]:
        return sorted(await stored.port.command("EVAL", script, 0))

    before = await dump()
    assert (await document(inspected, chain.key))["expires_in_s"] <= 500
    assert await dump() == before
    assert await stored.port.command("TTL", chain.key) <= 500


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["mageflow:{prod_/a}:chain:000a"], 1, "no signature is stored under 'mageflow:{prod_/a}:chain:000a'"),
        (["feed"], 1, "no signature is stored under 'feed'"),
        (["not an id"], 1, "no signature is stored under 'not an id'"),
        (["other:key"], 1, "no signature is stored under 'other:key'"),
        (
            ["mageflow:{prod_/a}:chain:000a", "--namespace", "dev"],
            2,
            "the key belongs to namespace 'prod_', not 'dev_'",
        ),
    ],
)
def test_an_unknown_key_is_one_line(mageflow_redis, capsys, arguments, status, message):
    """One line on stderr, nothing on stdout. Status 1 if it is not found, 2 for wrong arguments."""
    with pytest.raises(SystemExit) as ended:
        group.main(["inspect", *arguments, "--redis-url", mageflow_redis.url])

    printed = capsys.readouterr()
    assert ended.value.code == status
    assert printed.out == ""
    assert printed.err.startswith(f"mageflow: {message}")
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--redis-url", "redis://127.0.0.1:1/0"], 1, "could not be reached"),
        (["--redis-url", "http://localhost"], 2, "a Redis URL starts with"),
        ([], 2, "write --redis-url redis://HOST:6379"),
    ],
)
def test_an_unusable_redis_is_one_line(capsys, arguments, status, message):
    """Redis does not answer, the URL is not one of Redis, or there is none."""
    with pytest.raises(SystemExit) as ended:
        group.main(["inspect", "mageflow:{/a}:task:000a", *arguments])

    printed = capsys.readouterr()
    assert ended.value.code == status
    assert message in printed.err
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize("traces", [["a" * 32, "a" * 32], ["a" * 32, "b" * 32]], ids=["one trace", "two traces"])
async def test_a_trace_that_all_steps_share_is_shown_once(stored: StoredFlows, traces: list[str]) -> None:
    """A flow that was started outside of a span has no trace of its own: its steps have one, or one each."""
    chain = await stored.flows.creation.chain(["add", "add"])
    await stored.flows.start(chain)
    await stored.worker.drain()
    described = await describe_record(stored.port, stored.keys, chain.key)
    steps = [
        replace(step, traceparent=f"00-{trace}-{'c' * 16}-01")
        for step, trace in zip(described.members, traces, strict=True)
    ]
    console = DataConsole(width=180)
    with console.capture() as captured:
        draw(console, replace(described, members=tuple(steps)), None, (), values=False)

    assert [captured.get().count(trace) for trace in {*traces}] == [1] * len({*traces})
