"""``mageflow suspend``, ``resume`` and ``interrupt``: the lifecycle actions of the client, for one or more keys."""

from typing import TYPE_CHECKING, Any

import click

from mageflow.cli.acting import Action, act_on_each, history_options, user_name
from mageflow.cli.redis_options import redis_options

if TYPE_CHECKING:
    from mageflow.client import Mageflow

__all__ = ["interrupt", "resume", "suspend"]

_END = """\

\b
KEY is a key (quote it: it has braces) or an id, as in a log. #2 behind it
names a step. Needs Redis and Hatchet, and no code of your tasks.
Exit status: 0 done, 1 one of the keys was not found or not in a status for
this, or Redis or Hatchet does not answer, 2 wrong arguments.
"""

_SUSPEND = """\b
Examples:
  mageflow suspend ID --why "bank is down"          a whole id, as in a log
  mageflow suspend 'mageflow:{/a}:chain:ID#2'       one step of a chain
  mageflow list --flow nightly --status active --json \\
    | jq -r '.signatures[].key' | xargs mageflow suspend
"""

_RESUME = """\b
Examples:
  mageflow resume ID                                a whole id, as in a log
  mageflow resume 'mageflow:{/a}:chain:ID#2'        one step of a chain
  mageflow list --status suspended --json \\
    | jq -r '.signatures[].key' | xargs mageflow resume
"""

_INTERRUPT = """\b
Examples:
  mageflow interrupt ID --why "wrong prices"        a whole id, as in a log
  mageflow interrupt 'mageflow:{/a}:swarm:ID#7'     one item of a swarm
  mageflow interrupt ID --json | jq '.done[].status'
"""


@click.command(epilog=_SUSPEND + _END)
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@redis_options
@history_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def suspend(
    keys: tuple[str, ...], redis_url: str | None, namespace: str | None, by: str | None, why: str, *, as_json: bool
) -> None:
    """Let nothing more of a signature, chain or swarm start, until mageflow resume.

    A task that runs goes on to its end. The next step, the next items and the callbacks wait.
    """
    act_on_each(keys, redis_url, namespace, _action("suspend", by, why), as_json=as_json)


@click.command(epilog=_RESUME + _END)
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@redis_options
@history_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def resume(
    keys: tuple[str, ...], redis_url: str | None, namespace: str | None, by: str | None, why: str, *, as_json: bool
) -> None:
    """Continue a signature, chain or swarm that was suspended.

    Runs that were held are sent, and what ended meanwhile has its consequences now. Nothing that succeeded runs again.
    """
    act_on_each(keys, redis_url, namespace, _action("resume", by, why), as_json=as_json)


@click.command(epilog=_INTERRUPT + _END)
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@redis_options
@history_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def interrupt(
    keys: tuple[str, ...], redis_url: str | None, namespace: str | None, by: str | None, why: str, *, as_json: bool
) -> None:
    """End a signature, chain or swarm now, for good.

    Its runs are cancelled in Hatchet, its starts at a time are taken back, nothing more of it starts, and its error
    callbacks run. mageflow cancel cancels the runs alone.
    """
    act_on_each(keys, redis_url, namespace, _action("interrupt", by, why), as_json=as_json)


def _action(verb: str, by: str | None, why: str) -> Action:
    person = user_name() if by is None else by

    async def apply(client: "Mageflow", key: str) -> dict[str, Any]:
        act = {"suspend": client.suspend, "resume": client.resume, "interrupt": client.interrupt}[verb]
        status = await act(key, by=person, why=why)
        return {"status": str(status), "said": str(status)}

    return apply
