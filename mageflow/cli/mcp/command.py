"""The command line of the server. The package ``mcp`` is imported when the command runs."""

import asyncio
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from mageflow.cli.redis_options import redis_options

if TYPE_CHECKING:
    from mageflow.cli.mcp.sources import Reading

__all__ = ["mcp"]

_EPILOG = """\b
Examples:
  mageflow mcp                               as a client starts it
  mageflow mcp --redis-url redis://db:6379   another Redis
  mageflow mcp --no-payloads                 no values, no error texts
  mageflow mcp --http 18090                  at http://127.0.0.1:18090/mcp

\b
It reads only. A client starts it: docs/mcp.md has the lines for the usual
ones. Exit status: 0 ended by its client, 2 wrong arguments. Needs the extra
"mcp".
"""


@click.command(epilog=_EPILOG)
@redis_options
@click.option("--metrics", "urls", multiple=True, metavar="URL", help="URL of a worker's /metrics. May be repeated.")
@click.option("--no-payloads", is_flag=True, help="Refuse bound values and messages of exceptions, also if requested.")
@click.option("--raw-keys", is_flag=True, help="Show keys of locked resources as they are.")
@click.option(
    "--max-characters",
    type=click.IntRange(2000, 1_000_000),
    default=12_000,
    show_default=True,
    help="Length of the longest answer.",
)
@click.option("--http", "port", type=click.IntRange(1, 65535), help="Serve HTTP on this port of 127.0.0.1.")
def mcp(
    redis_url: str | None,
    namespace: str | None,
    urls: tuple[str, ...],
    max_characters: int,
    port: int | None,
    *,
    no_payloads: bool,
    raw_keys: bool,
) -> None:
    """Answer the questions of an assistant about flows, locks and waits.

    A server of the Model Context Protocol on stdin and stdout. It changes nothing, and shows no payload unless one is
    requested.
    """
    from mageflow.cli.extras import require_extra

    require_extra("mcp", "mcp", "mcp")
    from mageflow.cli.mcp.sources import Reading

    reading = Reading(
        redis_url=redis_url,
        namespace=namespace,
        urls=urls,
        has_payloads=not no_payloads,
        raw_keys=raw_keys,
        max_characters=max_characters,
    )
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(reading, port))


async def _serve(reading: "Reading", port: int | None) -> None:
    from mageflow.cli.mcp.server import serve_http, serve_stdio
    from mageflow.cli.mcp.sources import open_sources

    async with open_sources(reading) as sources:
        if port is not None:
            await serve_http(sources, port, lambda address: click.echo(f"{address} (Ctrl-C ends it)"))
            return
        if sys.stdin.isatty():
            click.echo(
                "mageflow: a client of the Model Context Protocol starts this command: see docs/mcp.md", err=True
            )
        await serve_stdio(sources)
