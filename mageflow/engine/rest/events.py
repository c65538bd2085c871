"""User events over REST."""

from __future__ import annotations

from aiohttp import web

from mageflow.engine.formats import iso
from mageflow.engine.model import TaskStatus, UserEvent
from mageflow.engine.repository import Repository
from mageflow.engine.rest.request import STABLE_TENANT, many, metadata_pairs, page_of, time_from
from mageflow.engine.rest.serializers import resource, without_nulls
from mageflow.engine.values import JsonObject

_SUMMARY = {
    TaskStatus.PENDING: "queued",
    TaskStatus.QUEUED: "queued",
    TaskStatus.RUNNING: "running",
    TaskStatus.EVICTED: "running",
    TaskStatus.COMPLETED: "succeeded",
    TaskStatus.FAILED: "failed",
    TaskStatus.CANCELLED: "cancelled",
}


def routes(tenant_id: str, repository: Repository) -> list[web.RouteDef]:
    """Return the routes of this module."""
    handlers = _Events(tenant_id, repository)
    return [
        web.get(f"{STABLE_TENANT}/events", handlers.list_events),
        web.get(f"{STABLE_TENANT}/events/keys", handlers.keys),
        web.get(f"{STABLE_TENANT}/events/{{id}}", handlers.details),
    ]


class _Events:
    def __init__(self, tenant_id: str, repository: Repository) -> None:
        self._tenant_id = tenant_id
        self._repository = repository

    async def list_events(self, request: web.Request) -> web.Response:
        keys, scopes, ids = set(many(request, "keys")), set(many(request, "scopes")), set(many(request, "eventIds"))
        workflows, statuses = set(many(request, "workflowIds")), set(many(request, "workflowRunStatuses"))
        since, until = time_from(request.query.get("since"), "since"), time_from(request.query.get("until"), "until")
        pairs = metadata_pairs(many(request, "additionalMetadata"))
        rows = [
            self._row(event)
            for event in reversed(self._repository.events.values())
            if (not keys or event.key in keys)
            and (not scopes or event.scope in scopes)
            and (not ids or event.id in ids)
            and (since is None or event.occurred_at >= since)
            and (until is None or event.occurred_at <= until)
            and (not workflows or any(each.run.workflow.id in workflows for each in event.triggered))
            and (not statuses or any(each.run.listed_status.public in statuses for each in event.triggered))
            and all(str(event.metadata.get(key)) == value for key, value in pairs)
        ]
        return web.json_response(page_of(request, rows))

    async def keys(self, _request: web.Request) -> web.Response:
        return web.json_response({"rows": sorted({event.key for event in self._repository.events.values()})})

    async def details(self, request: web.Request) -> web.Response:
        return web.json_response(self._row(self._repository.event(request.match_info["id"])))

    def _row(self, event: UserEvent) -> JsonObject:
        summary = dict.fromkeys(_SUMMARY.values(), 0)
        for each in event.triggered:
            summary[_SUMMARY[each.run.listed_status]] += 1
        return without_nulls(
            {
                "metadata": resource(event.id, event.occurred_at),
                "key": event.key,
                "tenantId": self._tenant_id,
                "workflowRunSummary": summary,
                "additionalMetadata": event.metadata,
                "payload": event.payload,
                "scope": event.scope,
                "triggeringWebhookName": event.webhook_name,
                "seenAt": iso(event.occurred_at),
                "triggeredRuns": [
                    without_nulls({"workflowRunId": each.run.id, "filterId": each.filter_id})
                    for each in event.triggered
                ],
            }
        )
