"""Hatchet's events of a run, for questions that its status does not answer.

- A run that its schedule timeout cancelled has the same status as one that a user cancelled.
- An attempt after a user's replay has the same number as an attempt after the death of a worker.
- A worker gets the same signal for a timeout and for a cancellation.
- An attempt after one that began has the same number as one after an attempt whose worker died before that.

The events distinguish them. Hatchet writes them a moment after the status (``internal/services/controllers/olap``,
August 2026), so they are read up to four times within 2.5 seconds. Only runs that
ended or began in one of these ways are read.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Final

from hatchet_sdk.clients.rest.api.task_api import TaskApi
from hatchet_sdk.clients.rest.exceptions import NotFoundException
from hatchet_sdk.clients.rest.models.v1_task_event import V1TaskEvent
from hatchet_sdk.clients.rest.models.v1_task_event_type import V1TaskEventType
from hatchet_sdk.features.runs import RunsClient

from mageflow.hatchet.errors_map import as_dispatch_error
from mageflow.metadata import KEY_ENQUEUED_AT
from mageflow.types import RunOrigin, TaskEnding

__all__ = ["ending_of", "has_begun_before", "is_unscheduled", "origin_of", "was_replayed", "was_timed_out"]

_PAUSES_SECONDS: Final = (0.0, 0.3, 0.7, 1.5)
_MOST_EVENTS: Final = 200
_CANCELLATIONS: Final = frozenset({V1TaskEventType.CANCELLED, V1TaskEventType.SCHEDULING_TIMED_OUT})
_SIGNALS: Final = frozenset({V1TaskEventType.CANCELLED, V1TaskEventType.TIMED_OUT})
_ANOTHER_ATTEMPT: Final = frozenset({V1TaskEventType.RETRIED_BY_USER, V1TaskEventType.REASSIGNED})

_ENDINGS: Final[Mapping[V1TaskEventType, TaskEnding]] = {
    V1TaskEventType.FINISHED: "succeeded",
    V1TaskEventType.FAILED: "failed",
    V1TaskEventType.TIMED_OUT: "timed_out",
    V1TaskEventType.CANCELLED: "cancelled",
}


async def is_unscheduled(runs: RunsClient, run_id: str) -> bool:
    """Whether the schedule timeout cancelled a run: no worker took it in time.

    Raises:
        hatchet_sdk.clients.rest.exceptions.ApiException: Hatchet could not be reached or refused.
    """
    async for events in _events(runs, run_id):
        ends = [each for each in events if each.event_type in _CANCELLATIONS]
        if ends:
            return max(ends, key=_time).event_type is V1TaskEventType.SCHEDULING_TIMED_OUT
    return False


def origin_of(runs: RunsClient, run_id: str) -> RunOrigin | None:
    """When and from what Hatchet made a run; None if it does not know the run. Blocks for the request.

    Raises:
        hatchet_sdk.clients.rest.exceptions.ApiException: Hatchet could not be reached or refused.
    """
    try:
        run = runs.get(run_id).run
    except NotFoundException:
        return None
    return RunOrigin(
        run.metadata.created_at.timestamp(), str((run.additional_metadata or {}).get(KEY_ENQUEUED_AT) or "")
    )


async def was_replayed(runs: RunsClient, run_id: str, attempt_number: int) -> bool:
    """Whether a user replayed a run after this attempt of it (from 1; 0 if it never began) ended.

    Raises:
        hatchet_sdk.clients.rest.exceptions.ApiException: Hatchet could not be reached or refused.
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
    """Whether the execution timeout ended this attempt (from 1) of a run, and not a cancellation.

    Raises:
        hatchet_sdk.clients.rest.exceptions.ApiException: Hatchet could not be reached or refused.
    """
    async for events in _events(runs, run_id):
        signals = [
            each for each in events if each.event_type in _SIGNALS and (each.retry_count or 0) == attempt_number - 1
        ]
        if signals:
            return min(signals, key=_time).event_type is V1TaskEventType.TIMED_OUT
    return False


async def ending_of(runs: RunsClient, task_run_id: str, attempt_number: int) -> TaskEnding | None:
    """How an attempt (from 1) of a task run ended; None if Hatchet has not recorded an end within 2.5 seconds.

    The first end counts: a report that arrives after a timeout changes nothing.

    Raises:
        DispatchError: Hatchet could not be reached or refused.
    """
    with as_dispatch_error(task_run_id):
        for pause_seconds in _PAUSES_SECONDS:
            await asyncio.sleep(pause_seconds)
            events = await asyncio.to_thread(_read_task, runs, task_run_id)
            ends = [each for each in events if each.event_type in _ENDINGS]
            ends = [each for each in ends if (each.retry_count or 0) == attempt_number - 1]
            if ends:
                return _ENDINGS[min(ends, key=_time).event_type]
    return None


async def has_begun_before(runs: RunsClient, task_run_id: str, attempt_number: int) -> bool | None:
    """Whether an attempt before this one (from 1) has begun, or a user has replayed the run since.

    The SDK reports a start when the process that listens for runs has received one, a moment before the process that
    runs the task. None if Hatchet has not recorded the start of this attempt, which comes after the others, within 2.5
    seconds.

    Raises:
        DispatchError: Hatchet could not be reached or refused.
    """
    with as_dispatch_error(task_run_id):
        for pause_seconds in _PAUSES_SECONDS[1:]:
            await asyncio.sleep(pause_seconds)
            events = await asyncio.to_thread(_read_task, runs, task_run_id)
            if any(each.event_type is V1TaskEventType.RETRIED_BY_USER for each in events):
                return True
            starts = {each.retry_count or 0 for each in events if each.event_type is V1TaskEventType.STARTED}
            if attempt_number - 1 in starts:
                return min(starts) < attempt_number - 1
    return None


async def _events(runs: RunsClient, run_id: str) -> AsyncGenerator[Sequence[V1TaskEvent]]:
    for pause_seconds in _PAUSES_SECONDS:
        await asyncio.sleep(pause_seconds)
        yield await asyncio.to_thread(_read, runs, run_id)


def _read(runs: RunsClient, run_id: str) -> Sequence[V1TaskEvent]:
    """The events of a stand-alone task's run: those of the run, else those of its one task, which has the same id.

    Hatchet keeps the events of such a run with the task only, and returns none without a limit.
    """
    try:
        if found := runs.get(run_id).task_events:
            return found
    except NotFoundException:
        return ()
    return _read_task(runs, run_id)


def _read_task(runs: RunsClient, task_run_id: str) -> Sequence[V1TaskEvent]:
    try:
        with runs.client() as client:
            return TaskApi(client).v1_task_event_list(task_run_id, limit=_MOST_EVENTS, offset=0).rows or ()
    except NotFoundException:
        return ()


def _time(event: V1TaskEvent) -> float:
    return event.timestamp.timestamp()
