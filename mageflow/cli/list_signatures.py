"""``mageflow list``: lists signatures, chains and swarms by status, name and age.

The command reads only, from an index; it never scans keys.
"""

import asyncio
import heapq
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import click

from mageflow.cli.moments import Duration
from mageflow.cli.redis_options import PIPE_WIDTH, hatchet_namespace, open_redis, redis_options
from mageflow.terminal import json_text

if TYPE_CHECKING:
    from mageflow.config import Settings
    from mageflow.store import FoundSignature, RedisPort

__all__ = ["STATUSES", "Listed", "SearchFilter", "list_signatures", "search"]

_EPILOG = """\b
Examples:
  mageflow list                              what changed last comes first
  mageflow list --status failed --since 1h   created in the last hour
  mageflow list --task price --limit 500     signatures of one task
  mageflow list --json | jq -r '.signatures[].key'

\b
The counts are those of everything stored in the namespace, not of the filter.
Exit status: 0 listed, 1 Redis does not answer, 2 wrong arguments.
"""

STATUSES: Final = ("pending", "active", "suspended", "done", "failed", "cancelled", "interrupted")


@click.command(name="list", epilog=_EPILOG)
@redis_options
@click.option(
    "--status", "statuses", multiple=True, type=click.Choice(STATUSES), help="Only this status; can be repeated."
)
@click.option("--task", metavar="NAME", help="Only signatures of this task.")
@click.option("--flow", metavar="NAME", help="Only chains and swarms of this name.")
@click.option(
    "--since",
    metavar="DURATION",
    type=Duration(bare=timedelta(minutes=1)),
    help="Only what was created in the last 90s, 30m, 2h30m, 7d. A number alone is minutes.",
)
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="How many to show.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def list_signatures(
    redis_url: str | None,
    namespace: str | None,
    statuses: tuple[str, ...],
    task: str | None,
    flow: str | None,
    since: timedelta | None,
    limit: int,
    *,
    as_json: bool,
) -> None:
    """List stored signatures, chains and swarms, with their counts.

    Shows what matches, the latest change first. mageflow inspect KEY shows one of them whole.
    """
    if task and flow:
        raise click.UsageError("--task and --flow exclude each other")
    listed = asyncio.run(_read(redis_url, namespace, SearchFilter(statuses, task, flow, since, limit)))
    if as_json:
        click.echo(json_text(listed.document()))
    else:
        from mageflow.cli.console import DataConsole
        from mageflow.cli.list_table import draw

        draw(DataConsole(width=PIPE_WIDTH), listed.signatures, matches=listed.matches, counts=listed.counts)


@dataclass(frozen=True, slots=True)
class SearchFilter:
    """What a search finds.

    Attributes:
        statuses: Only these; empty for all.
        task: Only signatures of this task.
        flow: Only chains and swarms of this name. It and ``task`` exclude each other.
        since: Only what was created in the last so much time; None for any age.
        limit: How many are kept, of those that match.
    """

    statuses: Collection[str]
    task: str | None
    flow: str | None
    since: timedelta | None
    limit: int


@dataclass(frozen=True, slots=True)
class Listed:
    """What a search found."""

    signatures: "tuple[FoundSignature, ...]"
    """The latest changes first; no more than the limit."""
    matches: int
    """How many match, shown or not."""
    counts: dict[str, dict[str, int]]
    """Everything stored in the namespace, by kind and status."""

    def document(self) -> dict[str, Any]:
        """What was found, as data for JSON."""
        return {
            "signatures": [_row(each) for each in self.signatures],
            "matches": self.matches,
            "counts": self.counts,
        }


def _row(each: "FoundSignature") -> dict[str, Any]:
    return {
        "key": each.key,
        "kind": each.kind,
        "name": each.name,
        "status": each.status,
        "created_at": each.created_at.isoformat(),
        "updated_at": each.updated_at.isoformat(),
        "attempts": each.attempts,
    }


async def _read(redis_url: str | None, namespace: str | None, only: SearchFilter) -> Listed:
    from mageflow.config import Settings

    settings = Settings()
    async with open_redis(redis_url, settings) as port:
        return await search(port, settings, hatchet_namespace(namespace), only)


async def search(port: "RedisPort", settings: "Settings", namespace: str, only: SearchFilter) -> Listed:
    """Find signatures, chains and swarms over the index.

    Args:
        port: Connects to Redis.
        settings: Has the prefix of keys.
        namespace: In the form of the SDK.
        only: What matches, and how many of it are kept.

    Raises:
        StoreError: Redis does not answer.
    """
    from mageflow.signatures import Status
    from mageflow.store import Keys, Store, kinds_of, search_records

    store = Store(port, Keys(settings.key_prefix, namespace), settings)
    latest: list[tuple[datetime, str, FoundSignature]] = []
    matches = 0
    async for each in search_records(
        port,
        store.keys,
        kinds=kinds_of(task=only.task or None, flow=only.flow or None),
        statuses=[Status(status) for status in only.statuses or STATUSES],
        name=only.task or only.flow or "",
        since=0.0 if only.since is None else max(0.0, time.time() - only.since.total_seconds()),
    ):
        matches += 1
        entry = (each.updated_at, each.key, each)
        if len(latest) < only.limit:
            heapq.heappush(latest, entry)
        else:
            heapq.heappushpop(latest, entry)
    counts: dict[str, dict[str, int]] = {}
    for (kind, status), count in (await store.census()).signatures.items():
        counts.setdefault(kind, {})[status] = int(count)
    return Listed(tuple(_newest_first(latest)), matches, counts)


def _newest_first(latest: "list[tuple[datetime, str, FoundSignature]]") -> "Iterator[FoundSignature]":
    for _, _, each in sorted(latest, key=lambda entry: entry[:2], reverse=True):
        yield each
