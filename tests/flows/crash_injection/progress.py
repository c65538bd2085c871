"""How far a flow has come, read from Redis."""

import json
from dataclasses import dataclass
from typing import Any

import redis.asyncio

from mageflow.store import flow_of_run

ENDED = {"done", "failed", "cancelled", "interrupted"}
ADDITION = "added:"
"""Prefix of the fields that note an addition to a swarm, among the states of its members."""


def flows_key(case: str) -> str:
    """The set with the keys of the flows a case has started; kept beside what mageflow stores."""
    return f"probe:flow:{case}"


def long_key(flow: str) -> str:
    """Exists once the task ``long`` has run in this flow."""
    return f"probe:long:{flow}"


@dataclass
class Progress:
    """The state of the flows of a case.

    Attributes:
        is_over: They have ended, nested flows included, and nothing is left to send.
        is_suspended: One is suspended; nested flows do not count, because resuming the flow resumes them.
        runs_long: The task ``long`` runs or has run in one of them.
    """

    is_over: bool
    is_suspended: bool
    runs_long: bool


async def read_state(
    client: redis.asyncio.Redis, key: str
) -> tuple[dict[str, str], dict[str, dict[str, Any]], int, int]:
    """Header, states of members by path, and the numbers of outbox entries and live members."""
    async with client.pipeline(transaction=False) as pipe:
        pipe.hgetall(key)
        pipe.hgetall(f"{key}:members")
        pipe.hlen(f"{key}:outbox")
        pipe.zcard(f"{key}:live")
        header, runs, outbox, live = await pipe.execute()
    members = {path: json.loads(text) for path, text in runs.items() if not path.startswith(ADDITION)}
    return header, members, outbox, live


async def read_progress(client: redis.asyncio.Redis, keys: set[str]) -> Progress:
    """The progress of the flows with these keys."""
    found = Progress(is_over=bool(keys), is_suspended=False, runs_long=False)
    waiting = list(keys)
    while waiting:
        key = waiting.pop()
        header, members, outbox, live = await read_state(client, key)
        states = [header.get("status"), *(state["status"] for state in members.values())]
        found.is_over = found.is_over and not outbox and not live and all(state in ENDED for state in states)
        found.is_suspended = found.is_suspended or (key in keys and header.get("status") == "suspended")
        found.runs_long = found.runs_long or bool(await client.exists(long_key(key)))
        waiting += [flow for state in members.values() if (flow := flow_of_run(state.get("run_id") or ""))]
    return found
