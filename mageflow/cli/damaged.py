"""``mageflow damaged``: lists what in Redis could not be read and was put aside, and clears the list."""

import asyncio
from typing import TYPE_CHECKING

import click

from mageflow.cli.redis_options import PIPE_WIDTH, hatchet_namespace, open_redis, redis_options
from mageflow.terminal import json_text

if TYPE_CHECKING:
    from mageflow.store import DamageNote

__all__ = ["damaged"]

_EPILOG = """\b
Examples:
  mageflow damaged                    kind, key, time and reason of each
  mageflow damaged --namespace prod   another namespace
  mageflow damaged --clear            after a repair: try the records again
  mageflow damaged --json | jq -r '.damaged[].key'

\b
Kinds: record, no reconciler visits it; index, an index of another type that
was deleted; entry, an entry of an index that names nothing and was removed.
What is still damaged after --clear is listed again.
Exit status: 0 listed, 1 Redis does not answer, 2 wrong arguments.
"""


@click.command(epilog=_EPILOG)
@redis_options
@click.option("--clear", is_flag=True, help="Empty the list, and let reconcilers visit the records again.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def damaged(redis_url: str | None, namespace: str | None, *, clear: bool, as_json: bool) -> None:
    """List what in Redis cannot be read and was put aside.

    A damaged record, index or entry stops no other flow: workers note it here, warn once and go on. Notes are kept
    for a week.
    """
    notes = asyncio.run(_read(redis_url, namespace, clear=clear))
    if as_json:
        listed = [
            {"kind": each.kind, "key": each.key, "reason": each.reason, "at": each.at.isoformat() if each.at else None}
            for each in notes
        ]
        click.echo(json_text({"damaged": listed, "cleared": clear}))
    else:
        from mageflow.cli.console import DataConsole
        from mageflow.cli.damaged_table import draw

        draw(DataConsole(width=PIPE_WIDTH), notes, cleared=clear)


async def _read(redis_url: str | None, namespace: str | None, *, clear: bool) -> "list[DamageNote]":
    from mageflow.config import Settings
    from mageflow.store import Keys, list_damaged

    settings = Settings()
    async with open_redis(redis_url, settings) as port:
        return await list_damaged(port, Keys(settings.key_prefix, hatchet_namespace(namespace)), clear=clear)
