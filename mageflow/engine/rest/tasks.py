"""Tasks over REST: details, history, logs; and restore and replay of durable tasks."""

from __future__ import annotations

from aiohttp import web

from mageflow.engine.durable import DurableTasks
from mageflow.engine.errors import InvalidRequestError
from mageflow.engine.formats import iso
from mageflow.engine.model import LogLine, Task
from mageflow.engine.replays import Replays
from mageflow.engine.repository import Repository
from mageflow.engine.rest import serializers
from mageflow.engine.rest.request import STABLE, STABLE_TENANT, body_of, many, page_of, time_from, window_of
from mageflow.engine.values import JsonObject

_LINES_PER_PAGE = 1000


def routes(tenant_id: str, repository: Repository, durable: DurableTasks, replays: Replays) -> list[web.RouteDef]:
    """Return the routes of this module."""
    handlers = _Tasks(tenant_id, repository, durable, replays)
    return [
        web.get(f"{STABLE}/tasks/{{id}}", handlers.details),
        web.get(f"{STABLE}/tasks/{{id}}/task-events", handlers.events),
        web.get(f"{STABLE}/tasks/{{id}}/logs", handlers.logs),
        web.post(f"{STABLE}/tasks/{{id}}/restore", handlers.restore),
        web.post(f"{STABLE_TENANT}/durable-tasks/branch", handlers.branch),
    ]


class _Tasks:
    def __init__(self, tenant_id: str, repository: Repository, durable: DurableTasks, replays: Replays) -> None:
        self._tenant_id = tenant_id
        self._repository = repository
        self._durable = durable
        self._replays = replays

    async def details(self, request: web.Request) -> web.Response:
        return web.json_response(serializers.task_details(self._tenant_id, self._task(request)))

    async def events(self, request: web.Request) -> web.Response:
        return web.json_response(
            {"rows": window_of(request, serializers.task_events(self._task(request))), "pagination": {}}
        )

    async def logs(self, request: web.Request) -> web.Response:
        task = self._task(request)
        rows: list[JsonObject] = [
            {
                "createdAt": iso(line.created_at),
                "message": line.message,
                "metadata": {},
                "level": line.level,
                "retryCount": line.retry_count,
                "attempt": line.retry_count + 1,
                "taskExternalId": task.id,
                "taskDisplayName": task.display_name,
            }
            for line in _selected_lines(request, task)
        ]
        return web.json_response(page_of(request, rows, size=_LINES_PER_PAGE))

    async def restore(self, request: web.Request) -> web.Response:
        return web.json_response({"requeued": self._durable.restore(self._task(request))})

    async def branch(self, request: web.Request) -> web.Response:
        body = await body_of(request)
        task = self._repository.task(str(body.get("taskExternalId", "")))
        node = body.get("nodeId")
        if not isinstance(node, int):
            raise InvalidRequestError("nodeId must be an integer")
        parent_branch = body.get("branchId")
        branch = self._replays.replay_from(task, node, parent_branch if isinstance(parent_branch, int) else None)
        return web.json_response({"taskExternalId": task.id, "nodeId": node, "branchId": branch})

    def _task(self, request: web.Request) -> Task:
        return self._repository.task(request.match_info["id"])


def _selected_lines(request: web.Request, task: Task) -> list[LogLine]:
    levels = {level.upper() for level in many(request, "levels")}
    since, until = time_from(request.query.get("since"), "since"), time_from(request.query.get("until"), "until")
    search = request.query.get("search", "")
    lines = [
        line
        for line in task.logs
        if (not levels or line.level in levels)
        and (since is None or line.created_at >= since)
        and (until is None or line.created_at <= until)
        and search in line.message
    ]
    newest_first = request.query.get("order_by_direction", "").upper() == "DESC"
    return lines[::-1] if newest_first else lines
