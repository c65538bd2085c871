"""Events and filters over REST."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from mageflow.engine.documents import iso
from mageflow.engine.errors import InvalidRequestError, NotFoundError
from mageflow.engine.events import EventRecord, Filter
from mageflow.engine.model import JsonObject, TaskStatus
from mageflow.engine.rest.request import STABLE_TENANT, body_of, integer, many, metadata_pairs, moment, page
from mageflow.engine.rest.shapes import as_object, resource, without_nulls

if TYPE_CHECKING:
    from mageflow.engine.core import Engine

_PAGE_SIZE = 50
_SUMMARY = {
    TaskStatus.PENDING: "queued",
    TaskStatus.QUEUED: "queued",
    TaskStatus.RUNNING: "running",
    TaskStatus.EVICTED: "running",
    TaskStatus.COMPLETED: "succeeded",
    TaskStatus.FAILED: "failed",
    TaskStatus.CANCELLED: "cancelled",
}


def routes(engine: Engine) -> list[web.RouteDef]:
    """Return the routes of this module."""
    events, filters = _Events(engine), _Filters(engine)
    return [
        web.get(f"{STABLE_TENANT}/events", events.list_events),
        web.get(f"{STABLE_TENANT}/events/keys", events.keys),
        web.get(f"{STABLE_TENANT}/events/{{id}}", events.details),
        web.get(f"{STABLE_TENANT}/filters", filters.list_filters),
        web.post(f"{STABLE_TENANT}/filters", filters.create),
        web.get(f"{STABLE_TENANT}/filters/{{id}}", filters.details),
        web.patch(f"{STABLE_TENANT}/filters/{{id}}", filters.update),
        web.delete(f"{STABLE_TENANT}/filters/{{id}}", filters.delete),
    ]


class _Events:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def list_events(self, request: web.Request) -> web.Response:
        keys, scopes, ids = set(many(request, "keys")), set(many(request, "scopes")), set(many(request, "eventIds"))
        workflows, statuses = set(many(request, "workflowIds")), set(many(request, "workflowRunStatuses"))
        since, until = moment(request.query.get("since"), "since"), moment(request.query.get("until"), "until")
        pairs = metadata_pairs(many(request, "additionalMetadata"))
        rows = [
            self._row(event)
            for event in reversed(self._engine.events.records.values())
            if (not keys or event.key in keys)
            and (not scopes or event.scope in scopes)
            and (not ids or event.id in ids)
            and (since is None or event.at >= since)
            and (until is None or event.at <= until)
            and (not workflows or any(each.run.workflow.id in workflows for each in event.triggered))
            and (not statuses or any(each.run.listed_status.public in statuses for each in event.triggered))
            and all(str(event.metadata.get(key)) == value for key, value in pairs)
        ]
        return web.json_response(
            page(rows, offset=integer(request, "offset", 0), limit=integer(request, "limit", _PAGE_SIZE))
        )

    async def keys(self, _request: web.Request) -> web.Response:
        keys = sorted({event.key for event in self._engine.events.records.values()})
        return web.json_response({"rows": keys})

    async def details(self, request: web.Request) -> web.Response:
        return web.json_response(self._row(self._engine.events.event(request.match_info["id"])))

    def _row(self, event: EventRecord) -> JsonObject:
        summary = dict.fromkeys(_SUMMARY.values(), 0)
        for each in event.triggered:
            summary[_SUMMARY[each.run.listed_status]] += 1
        return without_nulls(
            {
                "metadata": resource(event.id, event.at),
                "key": event.key,
                "tenantId": self._engine.tenant_id,
                "workflowRunSummary": summary,
                "additionalMetadata": event.metadata,
                "payload": event.payload,
                "scope": event.scope,
                "seenAt": iso(event.at),
                "triggeredRuns": [
                    without_nulls({"workflowRunId": each.run.id, "filterId": each.filter_id})
                    for each in event.triggered
                ],
            }
        )


class _Filters:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def list_filters(self, request: web.Request) -> web.Response:
        workflows, scopes = set(many(request, "workflowIds")), set(many(request, "scopes"))
        rows = [
            self._row(each)
            for each in self._engine.events.filters.values()
            if (not workflows or each.workflow_id in workflows) and (not scopes or each.scope in scopes)
        ]
        return web.json_response(
            page(rows, offset=integer(request, "offset", 0), limit=integer(request, "limit", _PAGE_SIZE))
        )

    async def create(self, request: web.Request) -> web.Response:
        body = await body_of(request)
        workflow = self._engine.store.workflows.get(str(body.get("workflowId")))
        if workflow is None:
            raise InvalidRequestError(f"no workflow {body.get('workflowId')}")
        added = self._engine.events.add_filter(
            workflow,
            scope=str(body.get("scope", "")),
            expression=str(body.get("expression", "")),
            payload=as_object(body.get("payload")),
        )
        return web.json_response(self._row(added))

    async def details(self, request: web.Request) -> web.Response:
        return web.json_response(self._row(self._filter(request)))

    async def update(self, request: web.Request) -> web.Response:
        body = await body_of(request)
        changed = self._filter(request)
        changed.scope = str(body.get("scope", changed.scope))
        changed.expression = str(body.get("expression", changed.expression))
        changed.payload = as_object(body.get("payload", changed.payload))
        return web.json_response(self._row(changed))

    async def delete(self, request: web.Request) -> web.Response:
        deleted = self._filter(request)
        del self._engine.events.filters[deleted.id]
        return web.json_response(self._row(deleted))

    def _filter(self, request: web.Request) -> Filter:
        found = self._engine.events.filters.get(request.match_info["id"])
        if found is None:
            raise NotFoundError(f"no filter {request.match_info['id']}")
        return found

    def _row(self, each: Filter) -> JsonObject:
        return {
            "metadata": resource(each.id, each.created_at),
            "tenantId": self._engine.tenant_id,
            "workflowId": each.workflow_id,
            "scope": each.scope,
            "expression": each.expression,
            "payload": each.payload,
            "isDeclarative": each.is_declared,
        }
