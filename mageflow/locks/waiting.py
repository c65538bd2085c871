"""The wait of a request in a queue: its task is in phase ``lock_wait`` and its timeout grows."""

import asyncio
from types import TracebackType
from typing import Final

from mageflow.background import logged
from mageflow.interceptors import Attempt, ExtendTimeout, LockAcquire
from mageflow.locks.notifier import EventPublisher
from mageflow.types import Phase, Stage

__all__ = ["WaitPhases", "WaitScope"]

_PUBLISHED_AFTER_SECONDS: Final = 1.0
_EXTENSION_SECONDS: Final = 10.0
"""Length of one extension. The wait is not known in advance; a task keeps what it was granted in excess."""
_AHEAD_SECONDS: Final = 2.0
"""The next extension is requested this long before the last is used up."""
_RETRY_SECONDS: Final = 5.0


class WaitPhases:
    """Puts attempts into phase and stage ``lock_wait`` while they have at least one wait."""

    def __init__(self) -> None:
        self._waits: dict[Attempt, tuple[int, Phase, Stage]] = {}
        """How many waits each attempt has, and its phase and stage before the first."""

    def enter(self, attempt: Attempt) -> None:
        """One more wait begins."""
        count, phase, stage = self._waits.get(attempt, (0, attempt.phase, attempt.stage))
        self._waits[attempt] = (count + 1, phase, stage)
        if count == 0:
            attempt.enter("lock_wait", "lock_wait")

    def leave(self, attempt: Attempt) -> None:
        """One wait ends; after the last the attempt returns to its earlier phase, unless it is in a new one."""
        count, phase, stage = self._waits.pop(attempt)
        if count > 1:
            self._waits[attempt] = (count - 1, phase, stage)
        else:
            attempt.enter(phase if attempt.phase == "lock_wait" else attempt.phase, stage)


class WaitScope:
    """A context manager around one wait in a queue.

    After a second it publishes `LockWaiting`, once per wait. From then on it extends the execution timeout of the task,
    ten seconds at a time, by what has been waited and by no more than the request's own timeout. If the task has less
    than two seconds left, the first extension comes earlier. Shorter waits extend nothing.
    """

    def __init__(
        self, call: LockAcquire, extend: ExtendTimeout | None, events: EventPublisher, phases: WaitPhases
    ) -> None:
        self._call = call
        self._extend = extend if call.attempt is not None else None
        self._events = events
        self._phases = phases
        self._task: asyncio.Task[None] | None = None
        self._extensions: set[asyncio.Future[float]] = set()

    def __enter__(self) -> None:
        """Begin to wait."""
        if self._call.attempt is not None:
            self._phases.enter(self._call.attempt)
        self._task = asyncio.get_running_loop().create_task(logged(self._run, "the extension for a lock wait"))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the wait."""
        if self._task is not None:
            self._task.cancel()
        if self._call.attempt is not None:
            self._phases.leave(self._call.attempt)

    async def _run(self) -> None:
        clock = asyncio.get_running_loop().time
        attempt, extend = self._call.attempt, self._extend
        started_at = clock()
        is_published = False
        granted_seconds = 0.0
        next_extension = _PUBLISHED_AFTER_SECONDS
        if attempt is not None:
            next_extension = min(next_extension, max(0.0, attempt.remaining_seconds / 2))
        while True:
            waited = clock() - started_at
            if not is_published and waited >= _PUBLISHED_AFTER_SECONDS:
                is_published = True
                self._events.waiting(self._call)
            wanted = self._wanted_seconds(granted_seconds)
            can_extend = wanted > 0
            if extend is not None and attempt is not None and can_extend and waited >= next_extension:
                more = await self._request_extension(extend, attempt, wanted)
                granted_seconds += more
                next_extension = granted_seconds - _AHEAD_SECONDS if more else waited + _RETRY_SECONDS
                next_extension = max(next_extension, waited + 0.1)
                continue
            due = [] if is_published else [_PUBLISHED_AFTER_SECONDS]
            if extend is not None and can_extend:
                due.append(next_extension)
            if not due:
                return
            await asyncio.sleep(max(0.001, min(due) - waited))

    def _wanted_seconds(self, granted_seconds: float) -> float:
        limit = self._call.timeout_seconds
        return _EXTENSION_SECONDS if limit is None else min(_EXTENSION_SECONDS, limit - granted_seconds)

    async def _request_extension(self, extend: ExtendTimeout, attempt: Attempt, seconds: float) -> float:
        """Shielded: the engine may have granted a request that is already on its way, and that must be recorded."""
        request = asyncio.ensure_future(extend(attempt, seconds, "lock"))
        self._extensions.add(request)
        request.add_done_callback(self._extensions.discard)
        return await asyncio.shield(request)
