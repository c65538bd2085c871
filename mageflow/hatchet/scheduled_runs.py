"""The runs of a task signature that Hatchet keeps for a time."""

import asyncio
from datetime import datetime
from typing import Final

from hatchet_sdk.clients.rest.models.scheduled_run_status import ScheduledRunStatus
from hatchet_sdk.features.scheduled import ScheduledClient

from mageflow.hatchet.errors_map import as_dispatch_error
from mageflow.metadata import KEY_SCHEDULE, KEY_SIGNATURE
from mageflow.store import signature_id_of

__all__ = ["delete_scheduled_runs"]

_PAGE: Final = 500


async def delete_scheduled_runs(scheduled: ScheduledClient, key: str) -> list[datetime]:
    """Delete what Hatchet keeps for a signature and has not started.

    Args:
        scheduled: Hatchet's scheduled runs.
        key: Of the signature.

    Returns:
        When the deleted runs would have started, the earliest first.

    Raises:
        DispatchError: Hatchet does not answer.
    """
    # The SDK's methods block: its own asynchronous ones call them in a thread too.
    return sorted(await asyncio.to_thread(_delete_all, scheduled, key))


def _delete_all(scheduled: ScheduledClient, key: str) -> list[datetime]:
    deleted: list[datetime] = []
    with as_dispatch_error(key):
        while times := _waiting(scheduled, key):
            answer = scheduled.bulk_delete(scheduled_ids=list(times))
            gone = [str(each) for each in answer.deleted_ids or ()]
            deleted += [times[each] for each in gone if each in times]
            if len(times) < _PAGE or not gone:
                break
    return deleted


def _waiting(scheduled: ScheduledClient, key: str) -> dict[str, datetime]:
    """A page of what has not started: the time by Hatchet's id. No offset, because the page before is deleted."""
    found = scheduled.list(
        limit=_PAGE,
        additional_metadata={KEY_SCHEDULE: signature_id_of(key)},
        statuses=[ScheduledRunStatus.SCHEDULED],
    )
    return {
        each.metadata.id: each.trigger_at
        for each in found.rows or ()
        if each.workflow_run_id is None and (each.additional_metadata or {}).get(KEY_SIGNATURE) == key
    }
