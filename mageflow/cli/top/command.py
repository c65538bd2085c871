"""The command line of the live view. Textual is imported when the command runs."""

import asyncio
import os
import shlex
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from mageflow.cli.moments import Duration
from mageflow.cli.redis_options import hatchet_namespace, open_redis, redis_options
from mageflow.errors import ConfigurationError
from mageflow.terminal import json_text

if TYPE_CHECKING:
    from mageflow.cli.top.sources import Reader, Snapshot

__all__ = ["open_reader", "top"]

_EPILOG = """\b
Examples:
  mageflow top                                workers of this host, and Redis
  mageflow top --redis-url redis://db:6379    another Redis
  mageflow top --metrics http://w1:18001/metrics   a worker of another host
  mageflow top --web                          the same in a browser
  mageflow top --json | jq '.tasks[] | {task, per_second, duration_p95}'

\b
Keys: 1 to 4 tabs, space pauses, r reads now, q quits. It changes nothing.
Exit status: 0 ended by its user, 2 wrong arguments. Needs the extra "top".
"""


@click.command(epilog=_EPILOG)
@redis_options
@click.option("--metrics", "urls", multiple=True, metavar="URL", help="URL of a worker's /metrics. May be repeated.")
@click.option(
    "--interval",
    metavar="DURATION",
    type=Duration(timedelta(seconds=0.2), timedelta(seconds=60), bare=timedelta(seconds=1)),
    default="1s",
    show_default=True,
    help="Time between two readings.",
)
@click.option("--raw-keys", is_flag=True, help="Show keys of locked resources as they are.")
@click.option("--web", "in_browser", is_flag=True, help="Serve it to browsers of this machine, on 127.0.0.1.")
@click.option("--port", type=click.IntRange(1, 65535), default=18080, show_default=True, help="Port of --web.")
@click.option("--json", "as_json", is_flag=True, help="Print one snapshot as JSON: two readings, an interval apart.")
def top(
    redis_url: str | None,
    namespace: str | None,
    urls: tuple[str, ...],
    interval: timedelta,
    port: int,
    *,
    raw_keys: bool,
    in_browser: bool,
    as_json: bool,
) -> None:
    """Watch tasks, staggers, locks, flows, errors and traces live.

    Reads /metrics of the workers of this host, and Redis. Single runs are shown for workers of this host.
    """
    seconds = interval.total_seconds()
    if as_json:
        from dataclasses import asdict

        snapshot = asyncio.run(_two_readings(redis_url, namespace, urls, seconds, raw_keys=raw_keys))
        click.echo(json_text(asdict(snapshot)))
        return
    from mageflow.cli.extras import LIVE_VIEW, require_extra

    require_extra("top", "top", *LIVE_VIEW)
    if in_browser:
        _serve(redis_url, namespace, urls, seconds, port, raw_keys=raw_keys)
        return
    asyncio.run(_watch(redis_url, namespace, urls, seconds, raw_keys=raw_keys))


def _serve(
    redis_url: str | None, namespace: str | None, urls: tuple[str, ...], interval: float, port: int, *, raw_keys: bool
) -> None:
    from mageflow.cli.top.web import serve

    arguments = [sys.executable, "-m", "mageflow", "top", "--interval", str(interval)]
    arguments += [each for url in urls for each in ("--metrics", url)]
    arguments += ["--raw-keys"] if raw_keys else []
    # Not as arguments: a URL of Redis may have a password, and every user of a machine sees arguments.
    if redis_url is not None:
        os.environ["MAGEFLOW_REDIS_URL"] = redis_url
    if namespace is not None:
        os.environ["HATCHET_CLIENT_NAMESPACE"] = namespace
    serve(shlex.join(arguments), port, lambda address: click.echo(f"{address} (Ctrl-C ends it)"))


async def _watch(
    redis_url: str | None, namespace: str | None, urls: tuple[str, ...], interval: float, *, raw_keys: bool
) -> None:
    from mageflow.cli.top.views import LiveView

    async with open_reader(redis_url, namespace, urls, raw_keys=raw_keys) as reader:
        await LiveView(reader, interval).run_async()


async def _two_readings(
    redis_url: str | None, namespace: str | None, urls: tuple[str, ...], interval: float, *, raw_keys: bool
) -> "Snapshot":
    async with open_reader(redis_url, namespace, urls, raw_keys=raw_keys) as reader:
        await reader.read()
        await asyncio.sleep(interval)
        return await reader.read()


@asynccontextmanager
async def open_reader(
    redis_url: str | None, namespace: str | None, urls: tuple[str, ...], *, raw_keys: bool = False
) -> "AsyncGenerator[Reader]":
    """A reader of the sources of the options or of the environment.

    Args:
        redis_url: URL of Redis.
        namespace: Namespace of Hatchet, as the user writes it.
        urls: URLs of ``/metrics``; empty for the workers of this host.
        raw_keys: Whether keys of locked resources are shown as they are.

    Raises:
        ConfigurationError: A URL is not one of ``/metrics``, or not one of Redis.
    """
    from mageflow.cli.top.sources import Reader, endpoint_candidates
    from mageflow.config import Settings
    from mageflow.store import Keys

    for url in urls:
        if not url.startswith(("http://", "https://")):
            raise ConfigurationError(f"--metrics takes a URL such as http://127.0.0.1:18001/metrics, not {url!r}")
    settings = Settings()
    keys = Keys(settings.key_prefix, hatchet_namespace(namespace))

    def candidates() -> list[str]:
        return list(urls) or endpoint_candidates(settings)

    if (redis_url or settings.resolved_redis_url()) is None:
        async with Reader(candidates, None, keys, raw_keys=raw_keys) as reader:
            yield reader
        return
    async with (
        open_redis(redis_url, settings) as port,
        Reader(candidates, port, keys, raw_keys=raw_keys) as reader,
    ):
        yield reader
