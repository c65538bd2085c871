"""``mageflow cancel``: cancels runs of a signature or flow that are under way, and takes back its starts at a time."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import click

from mageflow.cli.acting import act_on_each
from mageflow.cli.redis_options import open_redis, redis_options
from mageflow.errors import DispatchError, FlowError, SignatureError, SignatureInvalidError

if TYPE_CHECKING:
    from mageflow.client import Mageflow
    from mageflow.store import RedisPort

__all__ = ["NothingUnderWayError", "cancel"]

_EPILOG = """\b
Examples:
  mageflow cancel ID                            a whole id, as in a log
  mageflow cancel 'mageflow:{/a}:swarm:ID#7'    one item of a swarm
  mageflow cancel ID --json | jq '.done[].runs'
  mageflow start ID --in 2h; mageflow cancel ID   takes the start back

\b
A start of --at or --in is taken back: the signature, chain or swarm stays
stored and can be started again.
Afterwards: a chain ends as cancelled and its error callbacks run. A swarm
loses these items and goes on with the others. mageflow interrupt ends either
for good, and mageflow suspend lets running tasks end.
What is damaged in Redis is left out and named; all else is cancelled.
Exit status: 0 Hatchet was asked to cancel them, 1 a key was not found, has
nothing under way and no time to start, or is damaged, or Redis or Hatchet
does not answer, 2 wrong arguments.
"""

_PAGE: Final = 500
_UNDER_WAY: Final = ("sent", "active")


class NothingUnderWayError(FlowError):
    """No run of it was handed to Hatchet and has not ended, and it has no time at which it starts."""

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(f"{key!r} has no run under way and no time to start. mageflow interrupt ends what waits")


@click.command(epilog=_EPILOG)
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@redis_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def cancel(keys: tuple[str, ...], redis_url: str | None, namespace: str | None, *, as_json: bool) -> None:
    """Cancel the runs of a signature, chain or swarm that have not ended, and take back its starts at a time.

    The same as cancelling them in Hatchet's dashboard. Runs of nested flows are cancelled too. Nothing is deleted
    but the scheduled runs of a task signature.
    """

    async def apply(client: "Mageflow", key: str) -> dict[str, Any]:
        from hatchet_sdk.features.runs import BulkCancelReplayOpts

        async with open_redis(redis_url, client.settings) as port:
            found = _UnderWay(port)
            await found.look_at(key)
        runs = list(found.runs)
        times = await _take_back(client, key)
        if not runs and not times and found.unreadable:
            raise found.unreadable[0]
        if not runs and not times:
            raise NothingUnderWayError(key)
        try:
            if runs:
                await client.runs.aio_bulk_cancel(BulkCancelReplayOpts(ids=runs))
        except Exception as error:  # the driver of the REST API has no error of its own for all of them
            raise DispatchError("cancel", " ".join(str(error).split()) or type(error).__name__) from error
        said = [f"{len(runs)} {'run' if len(runs) == 1 else 'runs'} cancelled"] if runs else []
        said += [f"start at {_shown(each)} taken back" for each in times[:1]]
        said += [f"{len(times) - 1} more until {_shown(times[-1])}"] if len(times) > 1 else []
        return {
            "runs": runs,
            "taken_back": [_shown(each) for each in times],
            "said": ", ".join(said),
            "unreadable": found.unreadable,
        }

    act_on_each(keys, redis_url, namespace, apply, as_json=as_json)


async def _take_back(client: "Mageflow", key: str) -> list[datetime]:
    """The times of the starts that are taken back. A member of a flow has none."""
    if "#" in key:
        return []
    try:
        signature = await client.load_signature(key)
    except SignatureError:  # `_UnderWay` says what of it cannot be read
        return []
    return await signature.aio_unschedule()


def _shown(moment: datetime) -> str:
    return moment.astimezone().isoformat(timespec="seconds")


@dataclass
class _UnderWay:
    """Hatchet's ids of the runs that were sent and have not ended, nested flows included.

    What cannot be read is left out: a nested flow, or a step or item with what belongs to it.
    """

    port: "RedisPort"
    runs: dict[str, None] = field(default_factory=dict[str, None])
    """A dictionary keeps their order and each once."""
    unreadable: list[SignatureError] = field(default_factory=list[SignatureError])
    _seen: set[str] = field(default_factory=set[str])

    async def look_at(self, key: str) -> None:
        """Add the runs of a record or member."""
        from mageflow.store import Keys, describe_record

        if key in self._seen:
            return  # a damaged flow may stand in itself
        self._seen.add(key)
        try:
            described = await describe_record(self.port, Keys.of(key), key, limit=0)
        except SignatureError as error:
            self.unreadable.append(error)
            return
        if not described.path.is_record:
            await self._add(key, 0, 1)
            return
        for first in range(0, max(1, described.members_total), _PAGE):
            await self._add(key, first, _PAGE)

    async def _add(self, key: str, first: int, limit: int) -> None:
        from mageflow.store import Keys, describe_record

        try:
            described = await describe_record(self.port, Keys.of(key), key, first=first, limit=limit)
        except SignatureError as error:
            if limit == 1:
                self.unreadable.append(error)
                return
            half = limit // 2
            await self._add(key, first, half)
            await self._add(key, first + half, limit - half)
            return
        for each in described.members:
            if each.stage not in _UNDER_WAY:
                continue
            if each.flow_key:
                await self.look_at(each.flow_key)
            elif each.last_run is not None:
                self._add_run(f"{described.record}#{each.path}", each.last_run.workflow_run_id)

    def _add_run(self, key: str, run_id: str) -> None:
        try:
            UUID(run_id)
        except ValueError:  # with such an id Hatchet would cancel none of them
            self.unreadable.append(SignatureInvalidError(key, f"{run_id!r} is not the id of a run"))
        else:
            self.runs[run_id] = None
