"""``mageflow list`` over a real Valkey: table, JSON, filters and counts."""

import asyncio
import json

from click.testing import CliRunner

from mageflow.cli.list_signatures import list_signatures
from mageflow.testing import EmbeddedValkey
from tests.cli.stored_flows import StoredFlows


async def run(server: EmbeddedValkey, *arguments: str, status: int = 0) -> str:
    command = [*arguments, "--redis-url", server.url, "--namespace", "prod"]
    result = await asyncio.to_thread(CliRunner().invoke, list_signatures, command)
    assert result.exit_code == status, result.output
    return result.output


async def test_what_is_stored_is_listed(stored: StoredFlows, mageflow_redis: EmbeddedValkey) -> None:
    """The latest change first, filtered and limited; names are shown as text."""
    assert await run(mageflow_redis) == "nothing is stored: signatures, chains and swarms are, plain runs are not\n"
    signature = await stored.flows.creation.sign("add")
    chain = await stored.flows.creation.chain(["add", "add"], name="\x1b[31mred")
    await stored.flows.start(chain)
    await stored.worker.drain()

    drawn = await run(mageflow_redis)
    assert drawn.index(chain.key) < drawn.index(signature.key)
    assert "\x1b" not in drawn
    assert "stored as task: 1 pending" in drawn
    assert "stored as chain: 1 done" in drawn
    assert signature.key not in await run(mageflow_redis, "--status", "done", "--status", "failed")
    assert "nothing matches" in await run(mageflow_redis, "--flow", "absent")
    assert "1 of 2 are shown" in await run(mageflow_redis, "--limit", "1")

    document = json.loads(await run(mageflow_redis, "--task", "add", "--since", "1h", "--json"))
    assert [each["key"] for each in document["signatures"]] == [signature.key]
    assert document["signatures"][0] | {"created_at": "", "updated_at": ""} == {
        "key": signature.key,
        "kind": "task",
        "name": "add",
        "status": "pending",
        "attempts": 0,
        "created_at": "",
        "updated_at": "",
    }
    assert document["matches"] == 1
    assert document["counts"]["chain"]["done"] == 1
    for since in ("60", "3650d"):  # a number alone is minutes
        assert json.loads(await run(mageflow_redis, "--task", "add", "--since", since, "--json"))["matches"] == 1
    await asyncio.sleep(0.3)
    for since in ("0.2s", "0.001"):
        assert json.loads(await run(mageflow_redis, "--task", "add", "--since", since, "--json"))["matches"] == 0
    assert json.loads(await run(mageflow_redis, "--flow", "add", "--json"))["signatures"] == []


async def test_wrong_arguments(mageflow_redis: EmbeddedValkey) -> None:
    """Status 2, as of every command."""
    assert "exclude each other" in await run(mageflow_redis, "--task", "a", "--flow", "b", status=2)
    await run(mageflow_redis, "--status", "lost", status=2)
