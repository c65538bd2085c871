"""``mageflow damaged`` lists what was put aside in a real Valkey, and clears the list."""

import asyncio
import json
from typing import Any

from click.testing import CliRunner

from mageflow.cli.damaged import damaged
from mageflow.testing import EmbeddedValkey
from tests.cli.stored_flows import StoredFlows


async def run(server: EmbeddedValkey, *arguments: str) -> str:
    command = [*arguments, "--redis-url", server.url, "--namespace", "prod"]
    result = await asyncio.to_thread(CliRunner().invoke, damaged, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


async def test_what_was_put_aside_is_listed_and_cleared(stored: StoredFlows, mageflow_redis: EmbeddedValkey) -> None:
    """A record and an entry with their reasons, as text that cannot control the terminal; ``--clear`` empties it."""
    assert await run(mageflow_redis) == "nothing is damaged\n"
    chain = await stored.flows.creation.chain(["add", "add"])
    await stored.flows.start(chain)
    await stored.port.command("HSET", f"{chain.key}:outbox", "0", "{x")
    for key, entry in ((stored.due(chain.key), chain.key), ("mageflow:{prod_/0}:due", "\x1b[31mjunk")):
        await stored.port.command("ZADD", key, 1, entry)
        await stored.port.command("EXPIRE", key, 600)
    await stored.port.command("ZADD", "mageflow:{prod_/0}:due", 1, b"\xff")
    await stored.flows.reconciler().sweep()

    found: list[dict[str, Any]] = json.loads(await run(mageflow_redis, "--json"))["damaged"]
    assert {(each["kind"], each["key"]) for each in found} == {
        ("record", chain.key), ("entry", "\x1b[31mjunk"), ("entry", "\\xff"),
    }  # fmt: skip
    assert all(each["reason"] and each["at"] for each in found)
    drawn = await run(mageflow_redis, "--clear")
    assert chain.key in drawn
    assert "\x1b" not in drawn
    assert "3 put aside; the list is empty now" in drawn
    assert await run(mageflow_redis) == "nothing is damaged\n"
    assert await stored.port.command("ZSCORE", stored.due(chain.key), chain.key) is not None
