"""``mageflow locks``: shows who holds which lock and who waits for it, as tables or as JSON.

The command reads only: it takes no lock and ends no lease.
"""

import asyncio
from typing import TYPE_CHECKING

import click

from mageflow.cli.redis_options import PIPE_WIDTH, hatchet_namespace, open_redis, redis_options
from mageflow.terminal import json_text

if TYPE_CHECKING:
    from mageflow.locks import LocksReport
    from mageflow.store import Keys, RedisPort

__all__ = ["locks", "read_locks"]

_EPILOG = """\b
Examples:
  mageflow locks                                 who holds, who waits
  mageflow locks --redis-url redis://db:6379/1   another Redis
  mageflow locks --namespace prod --raw-keys     resource keys as they are
  mageflow locks --json | jq '.waiters[] | select(.waited_s > 60)'

\b
The key of a resource is your program's own data. It is shown as a hash, the
same one as in spans and logs, unless --raw-keys is given.
Exit status: 0 shown, 1 Redis does not answer, 2 wrong arguments.
"""


@click.command(epilog=_EPILOG)
@redis_options
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=1000,
    show_default=True,
    help="How many holders and how many waiters to read.",
)
@click.option("--raw-keys", is_flag=True, help="Show resource keys as they are.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def locks(redis_url: str | None, namespace: str | None, limit: int, *, raw_keys: bool, as_json: bool) -> None:
    """Show every lock: who holds it, since when, and who waits for it.

    Shows the task, run, worker and trace of each. A deadlock is resolved when it occurs, so a cycle is normally not
    seen here. The command makes one request to Redis and changes nothing.
    """
    report = asyncio.run(_read(redis_url, namespace, limit, raw_keys=raw_keys))
    if as_json:
        click.echo(json_text(report.document()))
    else:
        from mageflow.cli.console import DataConsole
        from mageflow.cli.locks_tables import draw

        draw(DataConsole(width=PIPE_WIDTH), report)


async def _read(redis_url: str | None, namespace: str | None, limit: int, *, raw_keys: bool) -> "LocksReport":
    from mageflow.config import Settings
    from mageflow.store import Keys

    settings = Settings()
    async with open_redis(redis_url, settings) as port:
        keys = Keys(settings.key_prefix, hatchet_namespace(namespace))
        return await read_locks(port, keys, limit, raw_keys=raw_keys)


async def read_locks(port: "RedisPort", keys: "Keys", limit: int, *, raw_keys: bool) -> "LocksReport":
    """Read the report of all locks. One round trip.

    Args:
        port: Connects to Redis.
        keys: Keys of the namespace.
        limit: How many holders and how many waiters to read.
        raw_keys: Whether keys of resources are shown as they are.

    Raises:
        StoreError: Redis does not answer.
    """
    from mageflow.locks import LocksReport
    from mageflow.store import LockStore

    return LocksReport.of(await LockStore(port, keys).snapshot(limit), raw_keys=raw_keys)
