"""``mageflow inspect``: shows one signature, chain or swarm as it is stored now, as a table or as JSON.

The command reads only: it refreshes no TTL and starts nothing. What runs now is looked for among the locks and in the
workers of this host.
"""

import asyncio
from typing import TYPE_CHECKING, Final

import click

from mageflow.cli.redis_options import PIPE_WIDTH, hatchet_namespace, open_redis, redis_options
from mageflow.cli.stored_key import check_namespace, resolve_key
from mageflow.terminal import json_text

if TYPE_CHECKING:
    from mageflow.cli.inspect.waits import Surroundings
    from mageflow.config import Settings
    from mageflow.store import Description, RedisPort

__all__ = ["find_description", "inspect"]

_LOCKS: Final = 10_000

_EPILOG = """\b
Examples:
  mageflow inspect 'mageflow:{prod_/a}:chain:ID'       a key
  mageflow inspect 'mageflow:{prod_/a}:chain:ID#2'     one step of a chain
  mageflow inspect ID --namespace prod                 a whole id, as in a log
  mageflow inspect KEY --first 100 --limit 20          items 100 to 119
  mageflow inspect KEY --json | jq '.members[] | select(.status == "failed")'

\b
A key has braces: quote it in a shell. client.chain(...) returns an object
with a .key. Logs and spans have the id as flow_id or signature_id.
Exit status: 0 found, 1 not found or Redis does not answer, 2 wrong arguments.
"""


@click.command(epilog=_EPILOG)
@click.argument("key")
@redis_options
@click.option("--first", type=click.IntRange(min=0), default=0, help="Number of the first step, item or run to show.")
@click.option("--limit", type=click.IntRange(0, 1000), default=50, show_default=True, help="How many of them to show.")
@click.option("--values", is_flag=True, help="Show the values bound to tasks: your program's own data.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def inspect(
    key: str, redis_url: str | None, namespace: str | None, first: int, limit: int, *, values: bool, as_json: bool
) -> None:
    """Show a signature, a chain or a swarm: what it waits for now, and where its time went.

    Shows its status, its steps or items with their callbacks, attempts, errors, run and trace ids, a time line, and its
    history. KEY is a key, which contains its namespace, or an id. The command changes nothing.
    """
    from mageflow.cli.inspect.timeline import timeline_of
    from mageflow.cli.inspect.waits import waits_of

    described, surroundings = asyncio.run(_describe(key, redis_url, namespace, first, limit))
    waits = waits_of(described, surroundings)
    if as_json:
        from mageflow.cli.inspect.document import inspect_document

        document = inspect_document(described, timeline_of(described), waits, values=values)
        click.echo(json_text(document))
    else:
        from mageflow.cli.console import DataConsole
        from mageflow.cli.inspect.tables import draw

        draw(DataConsole(width=PIPE_WIDTH), described, timeline_of(described), waits, values=values)


async def _describe(
    key: str, redis_url: str | None, namespace: str | None, first: int, limit: int
) -> "tuple[Description, Surroundings]":
    from mageflow.config import Settings

    settings = Settings()
    wanted = hatchet_namespace(namespace)
    check_namespace(key, wanted)
    async with open_redis(redis_url, settings) as port:
        described = await find_description(port, settings, wanted, key, first=first, limit=limit)
        return described, await _read_surroundings(port, settings, described)


async def find_description(
    port: "RedisPort", settings: "Settings", namespace: str, key: str, *, first: int, limit: int
) -> "Description":
    """Describe what is stored under a key, or under an id in this namespace.

    Args:
        port: Connects to Redis.
        settings: Has the prefix of keys.
        namespace: Where an id is looked up, in the form of the SDK. A key contains its own.
        key: A key or an id, of a record or of a member of one.
        first: Number of the first step, item or run to show.
        limit: How many of them to show.

    Raises:
        SignatureNotFoundError: Nothing is stored there.
        SignatureInvalidError: A stored document does not validate.
        StoreError: Redis does not answer.
    """
    from mageflow.store import describe_record

    keys, whole_key = await resolve_key(port, settings, key, namespace)
    return await describe_record(port, keys, whole_key, first=first, limit=limit)


async def _read_surroundings(port: "RedisPort", settings: "Settings", described: "Description") -> "Surroundings":
    """What the running tasks of a record may wait for: all locks, and the attempts that run in workers of this host.

    No round trip if none of its tasks runs.

    Raises:
        StoreError: Redis does not answer.
    """
    from mageflow.cli.inspect.waits import Surroundings
    from mageflow.cli.top.sources.endpoints import Scrape
    from mageflow.cli.top.sources.workers import attempts_of, sleepers_of
    from mageflow.cli.worker_runs import read_worker_runs
    from mageflow.locks import LocksReport
    from mageflow.store import Keys, LockStore

    if not any(each.stage == "active" and each.task for each in described.members):
        return Surroundings()
    store = LockStore(port, Keys.of(described.record))
    snapshot, documents = await asyncio.gather(store.snapshot(_LOCKS), read_worker_runs(settings))
    workers = [Scrape("", {}, each) for each in documents]
    return Surroundings(LocksReport.of(snapshot), attempts_of(workers), sleepers_of(workers))
