"""``mageflow cancel``: cancels in Hatchet the runs of a signature or flow that are under way."""

from typing import TYPE_CHECKING, Any, Final

import click

from mageflow.cli.acting import act_on_each
from mageflow.cli.redis_options import open_redis, redis_options
from mageflow.errors import DispatchError, FlowError

if TYPE_CHECKING:
    from mageflow.client import Mageflow
    from mageflow.store import RedisPort

__all__ = ["NothingUnderWayError", "cancel"]

_EPILOG = """\b
Examples:
  mageflow cancel 4f1c                          an id, as in a log
  mageflow cancel 'mageflow:{/a}:swarm:4f1c#7'  one item of a swarm
  mageflow cancel 4f1c --json | jq '.done[].runs'

\b
Afterwards: a chain ends as cancelled and its error callbacks run. A swarm
loses these items and goes on with the others. mageflow interrupt ends either
for good, and mageflow suspend lets running tasks end.
Exit status: 0 Hatchet was asked to cancel them, 1 a key was not found, has
nothing under way, or Redis or Hatchet does not answer, 2 wrong arguments.
"""

_PAGE: Final = 500
_UNDER_WAY: Final = ("sent", "active")


class NothingUnderWayError(FlowError):
    """No run of it was handed to Hatchet and has not ended."""

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(f"{key!r} has no run under way. mageflow interrupt ends what waits")


@click.command(epilog=_EPILOG)
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@redis_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def cancel(keys: tuple[str, ...], redis_url: str | None, namespace: str | None, *, as_json: bool) -> None:
    """Cancel in Hatchet the runs of a signature, chain or swarm that have not ended.

    The same as cancelling them in Hatchet's dashboard. Runs of nested flows are cancelled too. Nothing is deleted.
    """

    async def apply(client: "Mageflow", key: str) -> dict[str, Any]:
        from hatchet_sdk.features.runs import BulkCancelReplayOpts

        async with open_redis(redis_url, client.settings) as port:
            runs = await _runs_under_way(port, key)
        if not runs:
            raise NothingUnderWayError(key)
        try:
            await client.runs.aio_bulk_cancel(BulkCancelReplayOpts(ids=runs))
        except Exception as error:  # the driver of the REST API has no error of its own for all of them
            raise DispatchError("cancel", " ".join(str(error).split()) or type(error).__name__) from error
        return {"runs": runs, "said": f"{len(runs)} {'run' if len(runs) == 1 else 'runs'} cancelled"}

    act_on_each(keys, redis_url, namespace, apply, as_json=as_json)


async def _runs_under_way(port: "RedisPort", key: str) -> list[str]:
    """Hatchet's ids of the runs of a record or member that were sent and have not ended, nested flows included."""
    from mageflow.store import Keys, describe_record

    found: list[str] = []
    first = 0
    while True:
        described = await describe_record(port, Keys.of(key), key, first=first, limit=_PAGE)
        for each in described.members:
            if each.stage not in _UNDER_WAY:
                continue
            if each.flow_key:
                found += await _runs_under_way(port, each.flow_key)
            elif each.last_run is not None:
                found.append(each.last_run.workflow_run_id)
        first += _PAGE
        if not described.path.is_record or first >= described.members_total:
            return list(dict.fromkeys(found))
