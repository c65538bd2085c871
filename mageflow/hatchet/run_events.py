"""What Hatchet has written down of a run, where its status does not say enough.

A run that its schedule timeout cancelled has the status of one that a person cancelled, and an attempt that somebody's
replay made has the number of one that a dead worker's run was given elsewhere. A worker is told of a timeout and of a
cancellation in the same words. Hatchet's own events tell them apart.
They are written a moment later than the status (``internal/services/controllers/olap``, August 2026), so they are asked
for a few times. This file owns that question, which is only asked of runs that ended in one of these ways.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Final

from hatchet_sdk.clients.rest.api.task_api import TaskApi
from hatchet_sdk.clients.rest.exceptions import NotFoundException
from hatchet_sdk.clients.rest.models.v1_task_event import V1TaskEvent
from hatchet_sdk.clients.rest.models.v1_task_event_type import V1TaskEventType
from hatchet_sdk.features.runs import RunsClient

__all__ = ["is_unscheduled", "was_replayed", "was_timed_out"]

_PAUSES_SECONDS: Final = (0.0, 0.3, 0.7, 1.5)
_MOST_EVENTS: Final = 200
_CANCELLATIONS: Final = frozenset({V1TaskEventType.CANCELLED, V1TaskEventType.SCHEDULING_TIMED_OUT})
_SIGNALS: Final = frozenset({V1TaskEventType.CANCELLED, V1TaskEventType.TIMED_OUT})
_ANOTHER_ATTEMPT: Final = frozenset({V1TaskEventType.RETRIED_BY_USER, V1TaskEventType.REASSIGNED})


async def is_unscheduled(runs: RunsClient, run_id: str) -> bool:
    """Whether it was its schedule timeout that cancelled a run: no worker took it in time.

    Raises:
        hatchet_sdk.clients.rest.exceptions.ApiException: Hatchet could not be asked.
    """
    async for events in _events(runs, run_id):
        ends = [each for each in events if each.event_type in _CANCELLATIONS]
        if ends:
            return max(ends, key=_time).event_type is V1TaskEventType.SCHEDULING_TIMED_OUT
    return False


async def was_replayed(runs: RunsClient, run_id: str, attempt_number: int) -> bool:
    """Whether somebody has replayed a run after this attempt of it (from 1, 0 for one that never began) had ended.

    Raises:
        hatchet_sdk.clients.rest.exceptions.ApiException: Hatchet could not be asked.
    """
    async for events in _events(runs, run_id):
        later = [
            each
            for each in events
            if each.event_type in _ANOTHER_ATTEMPT and (each.retry_count or 0) >= attempt_number - 1
        ]
        if later:
            return any(each.event_type is V1TaskEventType.RETRIED_BY_USER for each in later)
    return False


async def was_timed_out(runs: RunsClient, run_id: str, attempt_number: int) -> bool:
    """Whether it was its execution timeout that ended this attempt (from 1) of a run, and nobody's cancellation.

    Raises:
        hatchet_sdk.clients.rest.exceptions.ApiException: Hatchet could not be asked.
    """
    async for events in _events(runs, run_id):
        signals = [
            each for each in events if each.event_type in _SIGNALS and (each.retry_count or 0) == attempt_number - 1
        ]
        if signals:
            return min(signals, key=_time).event_type is V1TaskEventType.TIMED_OUT
    return False


async def _events(runs: RunsClient, run_id: str) -> AsyncGenerator[Sequence[V1TaskEvent]]:
    for pause_seconds in _PAUSES_SECONDS:
        await asyncio.sleep(pause_seconds)
        yield await asyncio.to_thread(_read, runs, run_id)


def _read(runs: RunsClient, run_id: str) -> Sequence[V1TaskEvent]:
    """The events of a stand-alone task's run: of the run, or of its one task, which has the same id.

    Hatchet keeps those of such a run with the task alone, and returns none without a limit.
    """
    try:
        if found := runs.get(run_id).task_events:
            return found
        with runs.client() as client:
            return TaskApi(client).v1_task_event_list(run_id, limit=_MOST_EVENTS, offset=0).rows or ()
    except NotFoundException:
        return ()


def _time(event: V1TaskEvent) -> float:
    return event.timestamp.timestamp()
