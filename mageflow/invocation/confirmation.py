"""What the worker cannot know about an attempt: Hatchet is asked, off its path, before it is counted.

How it ended, after its end; and whether an attempt before it had begun, after its arrival.
"""

import asyncio
import contextvars
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

from mageflow.interceptors import Attempt, EarlierAttempts, Event, Interceptor, OutcomeConfirmed
from mageflow.invocation.outcome import failure, is_uncertain, worst
from mageflow.loop_stalls import LoopStalls
from mageflow.types import Outcome, TaskEnding

__all__ = ["EndingOf", "HasBegunBefore", "OutcomeConfirmations"]

_log = logging.getLogger("mageflow")

EndingOf = Callable[[str, int], Awaitable[TaskEnding | None]]
"""How an attempt (from 1) of a task run ended, by Hatchet; None if it has not ended."""

HasBegunBefore = Callable[[str, int], Awaitable[bool | None]]
"""Whether an attempt before this one (from 1) of a task run has begun, by Hatchet; None if it is not known."""

_AFTER_STALL_SECONDS = 5.0
"""Runs that arrived while the event loop was blocked start within this time after it."""

_LATE_START_SECONDS = 0.25
"""A stall is noticed at its end or a moment later, when the first runs have begun."""

_LIMIT_SECONDS: Final = 10.0
_MOST_PENDING: Final = 1000
_MOST_RETRIED: Final = 1000
_CONCURRENT: Final = 4
_MOST_LOOKING_BACK: Final = 100
_CONCURRENT_LOOKING_BACK: Final = 2
_LEAVING_SECONDS: Final = 3.0
"""How long a worker that stops waits for answers."""


class OutcomeConfirmations:
    """Asks Hatchet about attempts, in the background of the workers of one client.

    Bounded, for each worker: at most 1,000 attempts wait for their outcome, four requests run at a time, and each
    attempt waits for ten seconds. An attempt above the limit, or without an answer, keeps the outcome that the worker
    expects. At most 100 attempts look back, two at a time. One above the limit, or without an answer, counts as a retry
    of an attempt that had begun.

    Args:
        ending_of: Asks Hatchet.
        has_begun_before: Asks Hatchet.
        interceptor: Gets an `OutcomeConfirmed` for each uncertain attempt, and an `EarlierAttempts` for each that asks.
    """

    def __init__(self, ending_of: EndingOf, has_begun_before: HasBegunBefore, interceptor: Interceptor) -> None:
        self._ending_of = ending_of
        self._has_begun_before = has_begun_before
        self._retried_here: dict[str, None] = {}
        """Task run ids whose attempt has ended here and will be retried: their next attempt is not asked about."""
        self._interceptor = interceptor
        self._inquiries: dict[asyncio.AbstractEventLoop, _Inquiry] = {}
        self._contexts: dict[Attempt, tuple[_Inquiry, contextvars.Context]] = {}

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Watch the running event loop and ask Hatchet, while a worker runs. What is open at the end gets 3 s."""
        loop = asyncio.get_running_loop()
        inquiry = self._inquiries[loop] = _Inquiry(loop, self._ending_of, self._interceptor)
        watch = asyncio.create_task(inquiry.stalls.run(), name="mageflow-loop-stalls")
        try:
            yield
        finally:
            del self._inquiries[loop]
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
            await inquiry.leave()

    def follow(self, attempt: Attempt) -> None:
        """Ask Hatchet, if `examine` found the attempt uncertain. Call it after the interceptors of the attempt."""
        if attempt.will_retry:
            self._retried_here[attempt.task_run_id] = None
            if len(self._retried_here) > _MOST_RETRIED:
                del self._retried_here[next(iter(self._retried_here))]
        if attempt.is_unconfirmed:
            inquiry, context = self._contexts.pop(attempt)
            inquiry.begin(inquiry.confirm(attempt), context, OutcomeConfirmed(attempt))

    def look_back(self, attempt: Attempt) -> None:
        """Ask Hatchet whether an earlier attempt has begun, if an interceptor wants to know.

        Call it on the event loop, in the attempt's context, after the interceptors are entered.
        """
        if not attempt.asks_whether_first:
            return
        inquiry = self._inquiries.get(asyncio.get_running_loop())
        is_retried_here = attempt.task_run_id in self._retried_here
        if inquiry is None or is_retried_here or inquiry.looking_back >= _MOST_LOOKING_BACK:
            self._interceptor.event(EarlierAttempts(attempt, have_begun=True))
        else:
            inquiry.looking_back += 1
            look_back = inquiry.look_back(attempt, self._has_begun_before)
            inquiry.begin(look_back, contextvars.copy_context(), EarlierAttempts(attempt, have_begun=True))

    def examine(self, attempt: Attempt, cancelled_after: float | None) -> None:
        """Decide whether a concluded attempt is uncertain. Call it in the attempt's context, at its end."""
        try:
            inquiry = self._inquiries.get(asyncio.get_running_loop())
        except RuntimeError:  # the thread of a synchronous batch
            inquiry = next(iter(self._inquiries.values()), None)
        if inquiry is None or len(inquiry.tasks) - inquiry.looking_back + len(self._contexts) >= _MOST_PENDING:
            return
        began = attempt.started_at
        attempt.is_unconfirmed = is_uncertain(
            attempt,
            cancelled_after=cancelled_after,
            stalled_before=inquiry.stalls.longest(began - _AFTER_STALL_SECONDS, began + _LATE_START_SECONDS),
            stalled_within=0.0 if cancelled_after is None else inquiry.stalls.longest(began),  # no signal that is late
        )
        if attempt.is_unconfirmed:
            self._contexts[attempt] = inquiry, contextvars.copy_context()


class _Inquiry:
    """The open questions of one worker."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ending_of: EndingOf, interceptor: Interceptor) -> None:
        self.stalls = LoopStalls()
        self.tasks: set[asyncio.Task[None]] = set()
        self._loop = loop
        self._ending_of = ending_of
        self._interceptor = interceptor
        self._gate = asyncio.Semaphore(_CONCURRENT)
        self.looking_back = 0
        self._looking_back = asyncio.Semaphore(_CONCURRENT_LOOKING_BACK)

    def begin(self, ask: Coroutine[Any, Any, None], context: contextvars.Context, unanswered: Event) -> None:
        """Ask about an attempt. May be called from any thread. What is published if the loop is closed: unanswered."""
        try:
            self._loop.call_soon_threadsafe(self._begin, ask, context)
        except RuntimeError:
            ask.close()
            context.run(self._interceptor.event, unanswered)

    async def leave(self) -> None:
        """Wait for the open answers, 3 s at most. The rest keep the outcome that the worker expects."""
        await asyncio.sleep(0)  # what `begin` has scheduled begins
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=_LEAVING_SECONDS)
        open_tasks = list(self.tasks)
        for task in open_tasks:
            task.cancel()
        await asyncio.gather(*open_tasks, return_exceptions=True)

    def _begin(self, ask: Coroutine[Any, Any, None], context: contextvars.Context) -> None:
        # Not by `background.start`: what is published must reach the interceptors in the context of the attempt.
        task = self._loop.create_task(ask, context=context)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def look_back(self, attempt: Attempt, has_begun_before: HasBegunBefore) -> None:
        """Publish whether an earlier attempt has begun."""
        have_begun = True
        try:
            async with asyncio.timeout(_LIMIT_SECONDS), self._looking_back:
                have_begun = await has_begun_before(attempt.task_run_id, attempt.attempt_number) is not False
        except Exception as error:  # noqa: BLE001 - any failure: most later attempts are retries
            _log.debug("Hatchet did not say whether an attempt before %s had begun: %r", attempt.task_run_id, error)
        finally:
            self.looking_back -= 1
            self._interceptor.event(EarlierAttempts(attempt, have_begun))

    async def confirm(self, attempt: Attempt) -> None:
        """Ask how an attempt ended, and publish it."""
        try:
            async with asyncio.timeout(_LIMIT_SECONDS):
                await self._ask(attempt)
        except Exception as error:  # noqa: BLE001 - any failure: the worker's own view is the best there is
            _log.debug("Hatchet did not say how %s ended: %r", attempt.task_run_id, error)
        finally:
            self._interceptor.event(OutcomeConfirmed(attempt))

    async def _ask(self, attempt: Attempt) -> None:
        if not attempt.member_ids:
            expected = attempt.outcome
            if expected is None:
                return
            attempt.outcome = answer = await self._outcome(attempt, attempt.task_run_id, expected)
            _correct(attempt, expected, answer)
        else:
            answers = await asyncio.gather(
                *(
                    self._outcome(attempt, member_id, expected)
                    for member_id, expected in zip(attempt.member_ids, attempt.member_outcomes, strict=True)
                )
            )
            for expected, answer in zip(attempt.member_outcomes, answers, strict=True):
                _correct(attempt, expected, answer)
            attempt.member_outcomes = tuple(answers)
            attempt.outcome = answer = worst(answers)
        attempt.will_retry = answer in ("retried", "timed_out") and attempt.attempt_number < attempt.max_attempts

    async def _outcome(self, attempt: Attempt, task_run_id: str, expected: Outcome) -> Outcome:
        async with self._gate:
            ending = await self._ending_of(task_run_id, attempt.attempt_number)
        if ending is None or (ending == "failed" and expected in ("failed", "retried")):
            return expected
        return failure(attempt) if ending == "failed" else ending


def _correct(attempt: Attempt, expected: Outcome, answer: Outcome) -> None:
    if answer != expected:
        attempt.corrections.append((expected, answer))
