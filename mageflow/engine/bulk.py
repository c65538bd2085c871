"""Bulk requests of clients: cancel or replay runs and tasks by id."""

from __future__ import annotations

from collections.abc import Iterable

from mageflow.engine.lifecycle import Lifecycle
from mageflow.engine.parsing import check_ids
from mageflow.engine.replays import Replays
from mageflow.engine.repository import Repository


class BulkRequests:
    """Cancels and replays several runs and tasks. Unknown ids are no error, as in Hatchet.

    Args:
        repository: where runs and tasks are found.
        lifecycle: cancels the tasks.
        replays: replays them.
    """

    def __init__(self, repository: Repository, lifecycle: Lifecycle, replays: Replays) -> None:
        self._repository = repository
        self._lifecycle = lifecycle
        self._replays = replays

    def cancel(self, ids: Iterable[str]) -> list[str]:
        """Cancel the live tasks of runs, and single tasks. Return all ids, also those of unknown and ended ones.

        Raises:
            InvalidRequestError: an id is not a UUID. Nothing is cancelled then.
        """
        listed = list(ids)
        for each in self._known(listed):
            self._lifecycle.cancel(self._repository.tasks_of(each), "cancelled by request")
        return listed

    def replay(self, ids: Iterable[str]) -> list[str]:
        """Replay runs and tasks; return the ids of the tasks that were reset.

        Raises:
            InvalidRequestError: an id is not a UUID. Nothing is replayed then.
        """
        return [task_id for each in self._known(list(ids)) for task_id in self._replays.replay(each)]

    def _known(self, ids: list[str]) -> list[str]:
        check_ids(ids, "the id of a run or task")
        return [each for each in ids if each in self._repository.runs or each in self._repository.tasks]
