"""Counts of tasks over REST: by status, by queue, and of live tasks by name."""

from __future__ import annotations

from collections import Counter

from aiohttp import web

from mageflow.engine.formats import iso
from mageflow.engine.model import Task, TaskStatus
from mageflow.engine.repository import Repository
from mageflow.engine.rest.request import STABLE_TENANT, TENANT, many, time_from
from mageflow.engine.task_queue import TaskQueue
from mageflow.engine.values import JsonObject

_STATUSES = ("QUEUED", "RUNNING", "COMPLETED", "CANCELLED", "FAILED")


def routes(repository: Repository, queue: TaskQueue) -> list[web.RouteDef]:
    """Return the routes of this module."""
    handlers = _Metrics(repository, queue)
    return [
        web.get(f"{STABLE_TENANT}/task-metrics", handlers.by_status),
        web.get(f"{TENANT}/step-run-queue-metrics", handlers.by_queue),
        web.get(f"{TENANT}/queue-metrics", handlers.by_queue),
        web.get(f"{TENANT}/task-stats", handlers.live),
    ]


class _Metrics:
    def __init__(self, repository: Repository, queue: TaskQueue) -> None:
        self._repository = repository
        self._queue = queue

    async def by_status(self, request: web.Request) -> web.Response:
        since, until = time_from(request.query.get("since"), "since"), time_from(request.query.get("until"), "until")
        workflows = set(many(request, "workflow_ids"))
        counts = Counter(
            task.listed_status.public
            for task in self._repository.tasks.values()
            if task.created
            and (since is None or task.inserted_at >= since)
            and (until is None or task.inserted_at <= until)
            and (not workflows or task.run.workflow.id in workflows)
        )
        return web.json_response([{"status": status, "count": counts[status]} for status in _STATUSES])

    async def by_queue(self, _request: web.Request) -> web.Response:
        return web.json_response({"queues": self._queue.queued_by_action()})

    async def live(self, _request: web.Request) -> web.Response:
        stats: dict[str, JsonObject] = {}
        for task in self._repository.tasks.values():
            if task.status in (TaskStatus.QUEUED, TaskStatus.RUNNING):
                _count(stats.setdefault(task.name, {}), task)
        return web.json_response(stats)


def _count(stat: JsonObject, task: Task) -> None:
    part = stat.setdefault(task.status.value.lower(), {"total": 0, "queues": {}, "concurrency": []})
    part["total"] += 1
    part["queues"][task.definition.action] = part["queues"].get(task.definition.action, 0) + 1
    # Hatchet's ages are those of the runs, also of a retry, and once more without retries.
    fields = ("oldest", "oldestExcludingRetries") if task.retry_count == 0 else ("oldest",)
    for field in fields:
        part[field] = min(iso(task.inserted_at), part.get(field, "~"))
