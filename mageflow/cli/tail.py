"""``mageflow tail``: prints what happens to tasks, signatures and flows, until it is ended."""

import asyncio
import sys
from dataclasses import replace
from datetime import timedelta

import click

from mageflow.cli.moments import Duration
from mageflow.cli.redis_options import hatchet_namespace, open_redis, redis_options
from mageflow.cli.stored_key import check_namespace, resolve_key
from mageflow.cli.tail_filter import TailFilter
from mageflow.terminal import json_text

__all__ = ["tail"]

_EPILOG = """\b
Examples:
  mageflow tail                           everything that it can see
  mageflow tail --task price              one task
  mageflow tail --flow nightly            chains and swarms of one name
  mageflow tail --key ID                  one of them, until it ends
  mageflow tail --json | jq -c 'select(.what == "failed")'

\b
Sees changes of stored signatures and flows, of all workers, from Redis; and
attempts that end and deadlocks, of the workers of this host. Of what changes
twice between two looks, it prints the last change.
Exit status: 0 ended by Ctrl-C, or --key has ended; 1 not found, or Redis does
not answer; 2 wrong arguments.
"""


@click.command(epilog=_EPILOG)
@redis_options
@click.option("--task", metavar="NAME", help="Only this task.")
@click.option("--flow", metavar="NAME", help="Only chains and swarms of this name.")
@click.option("--key", metavar="KEY", help="Only this key or id, with what has happened so far; ends with it.")
@click.option(
    "--interval",
    metavar="DURATION",
    type=Duration(timedelta(seconds=0.1), timedelta(seconds=60), bare=timedelta(seconds=1)),
    default="1s",
    show_default=True,
    help="Time between two looks.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each line.")
def tail(
    redis_url: str | None,
    namespace: str | None,
    task: str | None,
    flow: str | None,
    key: str | None,
    interval: timedelta,
    *,
    as_json: bool,
) -> None:
    """Print what happens to tasks, signatures, chains and swarms, as it happens.

    Shows starts and ends, steps and items, suspensions with their reasons, errors, and where the time of each attempt
    went. It changes nothing.
    """
    only = TailFilter(task, flow, key)
    if only.is_ambiguous:
        raise click.UsageError("--task, --flow and --key exclude each other")
    try:
        asyncio.run(_follow(redis_url, namespace, only, interval.total_seconds(), as_json=as_json))
    except KeyboardInterrupt:
        return


async def _follow(
    redis_url: str | None, namespace: str | None, only: TailFilter, interval: float, *, as_json: bool
) -> None:
    from mageflow.cli.tail_follower import Follower
    from mageflow.config import Settings
    from mageflow.store import Keys

    settings = Settings()
    async with open_redis(redis_url, settings) as port:
        wanted = hatchet_namespace(namespace)
        keys = Keys(settings.key_prefix, wanted)
        if only.key is not None:
            check_namespace(only.key, wanted)
            keys, whole_key = await resolve_key(port, settings, only.key, wanted)
            only = replace(only, key=whole_key)
        follower = Follower(port, keys, settings, only)
        await follower.begin()
        while True:
            for each in await follower.look():
                click.echo(json_text(each.document()) if as_json else each.line())
            sys.stdout.flush()
            if follower.has_ended:
                return
            await asyncio.sleep(interval)
