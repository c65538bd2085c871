"""The tools: each reads what a command of the same subject reads, and answers with JSON of a bounded length."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from mageflow.cli.inspect import find_description
from mageflow.cli.inspect.document import inspect_document
from mageflow.cli.inspect.timeline import timeline_of
from mageflow.cli.inspect.waits import waits_of
from mageflow.cli.list_signatures import SearchFilter, search
from mageflow.cli.locks import read_locks
from mageflow.cli.mcp.answers import answer
from mageflow.cli.mcp.sources import Sources
from mageflow.cli.mcp.waits import surroundings_of, why
from mageflow.cli.top.sources import FlowNode, Snapshot, TaskRow, read_flow
from mageflow.errors import ConfigurationError, SignatureNotFoundError
from mageflow.store import Keys
from mageflow.terminal import json_text

__all__ = ["TOOL_NAMES", "Tools"]

TOOL_NAMES: Final = (
    "list_signatures",
    "show_signature",
    "list_flows",
    "show_flow",
    "list_locks",
    "recent_deadlocks",
    "why_is_it_waiting",
    "metrics_summary",
)
"""Every tool, in the order in which a client is shown them."""

_FIRST_READING_SECONDS: Final = 1.0
_PAYLOAD_LENGTH: Final = 1000
_HIDDEN: Final = "hidden: call again with include_payloads=true"
_REFUSED: Final = "hidden: the server was started with --no-payloads"

Limit = Annotated[int, Field(ge=1, le=200, description="How many to show.")]
Key = Annotated[str, Field(min_length=1, max_length=500, description="A key, or an id as in logs and spans.")]
Payloads = Annotated[
    bool, Field(description="Also show bound values and messages of exceptions: data of the user's program.")
]
StatusName = Literal["pending", "active", "suspended", "done", "failed", "cancelled", "interrupted"]


class Tools:
    """The tools over open sources. Each public method is one; its docstring is what a model reads."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    async def list_signatures(
        self,
        status: Annotated[StatusName | None, Field(description="Only with this status.")] = None,
        task: Annotated[str | None, Field(description="Only signatures of this task.")] = None,
        flow: Annotated[str | None, Field(description="Only chains and swarms of this name.")] = None,
        since_minutes: Annotated[
            float | None, Field(ge=0, le=5_256_000, description="Only what was created in the last so many minutes.")
        ] = None,
        limit: Limit = 20,
    ) -> str:
        """List stored signatures, chains and swarms, the latest change first, and count everything stored by status."""
        if task and flow:
            raise ConfigurationError("task and flow exclude each other")
        sources = self._sources
        since = None if since_minutes is None else timedelta(minutes=since_minutes)
        only = SearchFilter((status,) if status else (), task, flow, since, limit)
        found = await search(sources.port, sources.settings, sources.namespace, only)
        return self._answer(
            found.document(),
            {"signatures": "raise limit, or narrow with status, task, flow or since_minutes"},
            signatures=found.matches - len(found.signatures),
        )

    async def show_signature(
        self,
        key: Key,
        first: Annotated[int, Field(ge=0, description="Number of the first step or item to show.")] = 0,
        limit: Limit = 20,
        *,
        include_payloads: Payloads = False,
    ) -> str:
        """Show one signature, chain or swarm: status, progress, steps or items, runs, errors, trace and history."""
        sources = self._sources
        described = await find_description(
            sources.port, sources.settings, sources.namespace, key, first=first, limit=limit
        )
        has_payloads = include_payloads and sources.reading.has_payloads
        waits = waits_of(described, surroundings_of(await self._read()))
        document = inspect_document(described, timeline_of(described), waits, values=has_payloads)
        shown = sum(1 for each in described.members if not each.path.callbacks)
        if has_payloads:
            for each in (document, *document["members"]):
                each["values"] = _payload(each["values"])
        else:
            document["payloads"] = _HIDDEN if sources.reading.has_payloads else _REFUSED
            for each in (document, *document["members"]):
                each["error"] = _without_message(each["error"])
        left = described.members_total - first - shown if described.path.is_record else 0
        more = {"members": f"call again with first={first + shown}, or a lower limit"}
        return self._answer(document, more, members=left)

    async def list_flows(self, limit: Annotated[int, Field(ge=1, le=15, description="How many to show.")] = 5) -> str:
        """List chains and swarms that run or ended in the last hour, as trees of their members, with times and runs."""
        _ = self._sources.port
        snapshot = await self._read()
        flows = [_flow_document(each) for each in snapshot.flows]
        more = {"flows": "raise limit (at most 15), use list_signatures with flow, or show_flow with a key"}
        document: dict[str, Any] = {"flows": flows[:limit]}
        if snapshot.locks is None:  # Redis does not answer
            document["problems"] = list(snapshot.problems)
        return self._answer(document, more, flows=len(flows) - limit)

    async def show_flow(self, key: Key) -> str:
        """Show one chain or swarm as a tree: its members and nested flows with status, attempts, runs and times."""
        sources = self._sources
        found = await find_description(sources.port, sources.settings, sources.namespace, key, first=0, limit=1)
        node = await read_flow(sources.port, Keys.of(found.record), found.record)
        if node is None:
            raise SignatureNotFoundError(key)
        document = _flow_document(node)
        more = {"members": "use show_signature with first, on the key of this flow or of a nested one"}
        steps = sum(1 for each in node.members if "callback" not in each.role)
        return self._answer(document, more, members=node.members_total - steps)

    async def list_locks(self, limit: Limit = 20) -> str:
        """List held locks with their holders, and the requests that wait, with task, run, trace and times."""
        sources = self._sources
        report = await read_locks(sources.port, sources.keys, limit, raw_keys=sources.reading.raw_keys)
        how = "raise limit (at most 200); mageflow locks --limit shows all"
        more = {"holders": how, "waiters": how}
        return self._answer(
            report.document(),
            more,
            holders=report.holders_total - len(report.holders),
            waiters=report.waiters_total - len(report.waiters),
        )

    async def recent_deadlocks(self, limit: Limit = 10) -> str:
        """List deadlocks that workers of this host found and broke lately: victim, how it ended, the whole cycle."""
        snapshot = await self._read()
        found = [asdict(each) for each in snapshot.deadlocks]
        document = {
            "deadlocks": found[:limit],
            "deadlocks_total": snapshot.deadlocks_total,
            "problems": list(snapshot.problems),
        }
        more = {"deadlocks": "raise limit; a worker keeps its last 50"}
        return self._answer(document, more, deadlocks=len(found) - limit)

    async def why_is_it_waiting(self, key: Key) -> str:
        """Say why a signature, chain, swarm or run does not go on: a sentence for each thing it waits for."""
        snapshot = await self._read()
        reasons = await why(self._sources, key, snapshot)
        document = {"key": key, "reasons": reasons, "problems": list(snapshot.problems)}
        return self._answer(document, {"reasons": "ask for the key of one member"})

    async def metrics_summary(self) -> str:
        """Summarise workers and tasks of this host: in flight, waiting, ended, failed, rates, percentiles, staggers."""
        snapshot = await self._read()
        if snapshot.workers and snapshot.window_s <= 0:  # rates need two readings
            await asyncio.sleep(_FIRST_READING_SECONDS)
            snapshot = await self._read()
        document: dict[str, Any] = {
            "at": snapshot.at,
            "rates_over_s": round(snapshot.window_s, 1),
            "workers": [asdict(each) for each in snapshot.workers],
            "tasks": [asdict(each) for each in sorted(snapshot.tasks, key=_busy, reverse=True)],
            "staggered": len(snapshot.sleepers),
            "locks_held": None if snapshot.locks is None else snapshot.locks.holders_total,
            "locks_waited_for": None if snapshot.locks is None else snapshot.locks.waiters_total,
            "deadlocks_total": snapshot.deadlocks_total,
            "problems": list(snapshot.problems),
        }
        return self._answer(document, {"tasks": "mageflow top shows every task"})

    async def _read(self) -> Snapshot:
        return await self._sources.reader.read()

    def _answer(self, document: dict[str, Any], more: Mapping[str, str], **left: int) -> str:
        left_out = {name: {"items": count, "how": more[name]} for name, count in left.items() if count > 0}
        if left_out:
            document["left_out"] = left_out
        return answer(document, self._sources.reading.max_characters, more)


def _busy(row: TaskRow) -> int:
    return row.running + (row.waiting or 0)


def _flow_document(node: FlowNode) -> dict[str, Any]:
    """A flow as data for JSON; of an error the class alone, because its message is data of the user's program."""
    document = asdict(node)
    _hide_messages(document)
    document["at"] = time.time()
    return document


def _hide_messages(flow: dict[str, Any]) -> None:
    flow["error"] = flow["error"].partition(":")[0]
    for member in flow["members"]:
        member["error"] = member["error"].partition(":")[0]
        if member["nested"] is not None:
            _hide_messages(member["nested"])


def _without_message(error: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if error is None else {name: value for name, value in error.items() if name != "message"}


def _payload(values: Any) -> Any:
    """Values as they are, or as the beginning of their JSON where they are long."""
    text = json_text(values)
    return values if len(text) <= _PAYLOAD_LENGTH else text
