"""Settles runs of whole workflows: they have several tasks, and no task knows that it is the last.

Hatchet knows when such a run has ended. So after each task of it that ends in this process, Hatchet is asked, at once
and then less and less often. A run that goes on for longer is looked at again after its next task, here or in another
worker. If the process ends before that, a reconciler asks Hatchet after ``reconcile_check_seconds``.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final
from weakref import WeakKeyDictionary

from mageflow.background import logged, start
from mageflow.errors import DispatchError, MageflowError
from mageflow.flows.ended_runs import ended_run
from mageflow.signatures import RunIdentity
from mageflow.store import AttemptOutcome
from mageflow.types import Dispatcher

__all__ = ["WorkflowRuns"]

_PAUSES_SECONDS: Final = (0.03, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 5.0, 5.0)
_MOST: Final = 1000
_CLOSING_SECONDS: Final = 2.0

_log = logging.getLogger("mageflow.flows")


class WorkflowRuns:
    """The runs of workflows of which a task has ended in this process lately, per event loop.

    Args:
        dispatcher: Asks Hatchet.
        settle: Settles a run and sends what follows.
    """

    def __init__(
        self, dispatcher: Dispatcher, settle: Callable[[str, RunIdentity, AttemptOutcome], Awaitable[object]]
    ) -> None:
        self._dispatcher = dispatcher
        self._settle = settle
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Followed]] = WeakKeyDictionary()

    def task_ended(self, key: str, run: RunIdentity) -> None:
        """Ask Hatchet whether the run has ended, and settle it then. Above 1,000 runs the reconcilers do it.

        Args:
            key: Key of the signature or member.
            run: The run; its attempt is of no interest.
        """
        followed = self._loops.setdefault(asyncio.get_running_loop(), {})
        before = followed.pop(run.workflow_run_id, None)
        if before is not None:
            before.task.cancel()
        if len(followed) >= _MOST:
            return
        look = logged(lambda: self._follow(followed, key, run), "a look at the run of a workflow")
        work = start(look, "mageflow-workflow-run")
        followed[run.workflow_run_id] = _Followed(key, run, work)

    async def close(self) -> None:
        """Ask for the last time, and leave the rest to the reconcilers."""
        followed = self._loops.pop(asyncio.get_running_loop(), {})
        for each in followed.values():
            each.task.cancel()
        await asyncio.gather(*(each.task for each in followed.values()), return_exceptions=True)
        try:
            async with asyncio.timeout(_CLOSING_SECONDS):
                await asyncio.gather(*(self._settle_if_ended(each.key, each.run) for each in followed.values()))
        except (TimeoutError, MageflowError) as error:
            _log.info("runs of %d workflows are left to the reconcilers: %s", len(followed), error)

    async def _follow(self, followed: "dict[str, _Followed]", key: str, run: RunIdentity) -> None:
        try:
            for pause in _PAUSES_SECONDS:
                await asyncio.sleep(pause)
                if await self._settle_if_ended(key, run):
                    return
        except DispatchError as error:
            _log.info("the run %s is left to the reconcilers: %s", run.workflow_run_id, error)
        except MageflowError as error:
            _log.error("the end of %s could not be recorded: %s", key, error)
        finally:
            own = followed.get(run.workflow_run_id)
            if own is not None and own.task is asyncio.current_task():
                followed.pop(run.workflow_run_id)

    async def _settle_if_ended(self, key: str, run: RunIdentity) -> bool:
        run_id = run.workflow_run_id
        report = (await self._dispatcher.statuses([run_id])).get(run_id)
        ended = None if report is None else ended_run(run_id, report, attempt_number=1, is_workflow=True)
        if ended is None:
            return False
        await self._settle(key, run, ended)
        return True


class _Followed:
    def __init__(self, key: str, run: RunIdentity, task: asyncio.Task[None]) -> None:
        self.key = key
        self.run = run
        self.task = task
