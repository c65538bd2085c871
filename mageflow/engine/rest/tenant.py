"""The tenant over REST: itself, rate limits, metrics, the CEL debugger."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from aiohttp import web

from mageflow.engine.documents import iso
from mageflow.engine.expressions import ExpressionError, evaluate
from mageflow.engine.model import JsonObject, Task, TaskStatus
from mageflow.engine.rate_limits import Bucket
from mageflow.engine.rest.request import STABLE_TENANT, TENANT, body_of, integer, many, moment, page
from mageflow.engine.rest.shapes import as_object, resource, without_nulls
from mageflow.engine.settings import ENGINE_VERSION

if TYPE_CHECKING:
    from mageflow.engine.core import Engine

_PAGE_SIZE = 50
_STATUSES = ("QUEUED", "RUNNING", "COMPLETED", "CANCELLED", "FAILED")


def routes(engine: Engine) -> list[web.RouteDef]:
    """Return the routes of this module."""
    handlers = _Tenant(engine)
    return [
        web.get(TENANT, handlers.details),
        web.get("/api/v1/version", handlers.version),
        web.get(f"{TENANT}/rate-limits", handlers.rate_limits),
        web.post(f"{STABLE_TENANT}/cel/debug", handlers.cel_debug),
        web.get(f"{STABLE_TENANT}/task-metrics", handlers.task_metrics),
        web.get(f"{TENANT}/step-run-queue-metrics", handlers.queue_metrics),
        web.get(f"{TENANT}/queue-metrics", handlers.queue_metrics),
        web.get(f"{TENANT}/task-stats", handlers.task_stats),
    ]


class _Tenant:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._created_at = engine.clock.now()

    async def details(self, _request: web.Request) -> web.Response:
        return web.json_response(
            {
                "metadata": resource(self._engine.tenant_id, self._created_at),
                "name": "local",
                "slug": "local",
                "version": "V1",
            }
        )

    async def version(self, _request: web.Request) -> web.Response:
        return web.json_response({"version": ENGINE_VERSION})

    async def rate_limits(self, request: web.Request) -> web.Response:
        search = request.query.get("search", "")
        rows = [self._bucket(each) for each in self._engine.rate_limits.buckets.values() if search in each.key]
        return web.json_response(
            page(rows, offset=integer(request, "offset", 0), limit=integer(request, "limit", _PAGE_SIZE))
        )

    async def cel_debug(self, request: web.Request) -> web.Response:
        body = await body_of(request)
        variables = {
            "input": as_object(body.get("input")),
            "additional_metadata": as_object(body.get("additionalMetadata")),
            "payload": as_object(body.get("filterPayload")),
            "event_id": "00000000-0000-0000-0000-000000000000",
            "event_key": "event:key",
        }
        try:
            value = evaluate(str(body.get("expression", "")), variables)
        except ExpressionError as error:
            return web.json_response({"status": "ERROR", "error": str(error)})
        if not isinstance(value, bool):
            return web.json_response({"status": "ERROR", "error": f"expression must yield a bool, not {value!r}"})
        return web.json_response({"status": "SUCCESS", "output": value})

    async def task_metrics(self, request: web.Request) -> web.Response:
        since, until = moment(request.query.get("since"), "since"), moment(request.query.get("until"), "until")
        workflows = set(many(request, "workflow_ids"))
        counts = Counter(
            task.listed_status.public
            for task in self._engine.store.tasks.values()
            if task.created
            and (since is None or task.inserted_at >= since)
            and (until is None or task.inserted_at <= until)
            and (not workflows or task.run.workflow.id in workflows)
        )
        return web.json_response([{"status": status, "count": counts[status]} for status in _STATUSES])

    async def queue_metrics(self, _request: web.Request) -> web.Response:
        return web.json_response({"queues": self._engine.scheduler.queued_by_action()})

    async def task_stats(self, _request: web.Request) -> web.Response:
        stats: dict[str, JsonObject] = {}
        for task in self._engine.store.tasks.values():
            if task.status in (TaskStatus.QUEUED, TaskStatus.RUNNING):
                self._count(stats.setdefault(task.step.readable_id, {}), task)
        return web.json_response(stats)

    def _count(self, stat: JsonObject, task: Task) -> None:
        part = stat.setdefault(task.status.value.lower(), {"total": 0, "queues": {}, "concurrency": []})
        part["total"] += 1
        part["queues"][task.step.action] = part["queues"].get(task.step.action, 0) + 1
        since = task.queued_at if task.status is TaskStatus.QUEUED else task.started_at
        if since is not None and iso(since) < part.get("oldest", "~"):
            part["oldest"] = iso(since)

    def _bucket(self, bucket: Bucket) -> JsonObject:
        now = self._engine.clock.now()
        bucket.refill(now)
        return without_nulls(
            {
                "key": bucket.key,
                "tenantId": self._engine.tenant_id,
                "limitValue": bucket.limit,
                "value": bucket.value,
                "window": bucket.window_name,
                "lastRefill": iso(bucket.refilled_at),
                "pausedUntil": iso(bucket.paused_until) if bucket.paused_until else None,
            }
        )
