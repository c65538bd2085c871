"""What happens to a request while it waits: it is visible, it is told of, and its task's timeout grows.

This file owns the time spent in a queue. It refuses to know how the wait ends.
"""

import asyncio
from types import TracebackType
from typing import Final

from mageflow.interceptors import Attempt, ExtendTimeout, Interceptor, LockAcquire, LockWaiting
from mageflow.types import Phase, Stage

__all__ = ["Depths", "WaitScope"]

_TOLD_AFTER_SECONDS: Final = 1.0
_EXTENSION_SECONDS: Final = 10.0
"""Asked for at a time: the wait is not known in advance, and what is granted in excess stays with the task."""
_AHEAD_SECONDS: Final = 2.0
"""The next extension is asked for this long before the last is used up."""
_RETRY_SECONDS: Final = 5.0

Depths = dict[Attempt, tuple[int, Phase, Stage]]
"""How many waits each attempt has, and where it was before the first."""


class WaitScope:
    """A context manager around a wait in a queue.

    The attempt is in phase and stage ``lock_wait``. After a second `LockWaiting` is published, once per
    request. From then on (earlier when the task has little time left) its execution timeout is extended by what has
    been waited, ten seconds at a time and by no more than the request's own timeout. Short waits ask for nothing.
    """

    def __init__(
        self, call: LockAcquire, extend: ExtendTimeout | None, interceptor: Interceptor, depths: Depths
    ) -> None:
        self._call = call
        self._depths = depths
        self._extend = extend
        self._interceptor = interceptor
        self._task: asyncio.Task[None] | None = None
        self._requests: set[asyncio.Future[float]] = set()

    def __enter__(self) -> None:
        """Begin to wait."""
        if self._call.attempt is not None:
            _enter_wait(self._depths, self._call.attempt)
        self._task = asyncio.get_running_loop().create_task(self._pass())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the wait."""
        if self._task is not None:
            self._task.cancel()
        if self._call.attempt is not None:
            _leave_wait(self._depths, self._call.attempt)

    async def _pass(self) -> None:
        attempt = self._call.attempt
        started = asyncio.get_running_loop().time()
        is_told = False
        granted = 0.0
        next_extension = _TOLD_AFTER_SECONDS
        if attempt is not None:
            next_extension = min(next_extension, max(0.0, attempt.remaining_seconds / 2))
        while True:
            waited = asyncio.get_running_loop().time() - started
            if not is_told and waited >= _TOLD_AFTER_SECONDS:
                is_told = True
                self._tell()
            wanted = self._wanted(granted)
            if self._extend is not None and attempt is not None and wanted > 0 and waited >= next_extension:
                more = await self._ask_for(self._extend, attempt, wanted)
                granted += more
                next_extension = granted - _AHEAD_SECONDS if more else waited + _RETRY_SECONDS
                next_extension = max(next_extension, waited + 0.1)
                continue
            pending = [_TOLD_AFTER_SECONDS] if not is_told else []
            if self._extend is not None and attempt is not None and wanted > 0:
                pending.append(next_extension)
            if not pending:
                return
            await asyncio.sleep(max(0.001, min(pending) - waited))

    def _tell(self) -> None:
        """An interceptor that fails must not keep the task from getting more time."""
        try:
            self._interceptor.event(LockWaiting(self._call))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the interceptor's
            asyncio.get_running_loop().call_exception_handler(
                {"message": "an interceptor failed while told about a lock", "exception": error}
            )

    def _wanted(self, granted: float) -> float:
        limit = self._call.timeout_seconds
        return _EXTENSION_SECONDS if limit is None else min(_EXTENSION_SECONDS, limit - granted)

    async def _ask_for(self, extend: ExtendTimeout, attempt: Attempt, seconds: float) -> float:
        """A request that is on its way is not taken back: the engine may have granted it, and that must be noted."""
        request = asyncio.ensure_future(extend(attempt, seconds, "lock"))
        self._requests.add(request)
        request.add_done_callback(self._requests.discard)
        return await asyncio.shield(request)


def _enter_wait(depths: Depths, attempt: Attempt) -> None:
    count, phase, stage = depths.get(attempt, (0, attempt.phase, attempt.stage))
    depths[attempt] = (count + 1, phase, stage)
    if count == 0:
        attempt.enter("lock_wait", "lock_wait")


def _leave_wait(depths: Depths, attempt: Attempt) -> None:
    count, phase, stage = depths.pop(attempt)
    if count > 1:
        depths[attempt] = (count - 1, phase, stage)
    else:
        attempt.enter(phase if attempt.phase == "lock_wait" else attempt.phase, stage)
