"""Event filters over REST."""

from __future__ import annotations

from aiohttp import web

from mageflow.engine.errors import InvalidRequestError
from mageflow.engine.filters import Filter, Filters
from mageflow.engine.repository import Repository
from mageflow.engine.rest.request import STABLE_TENANT, body_of, many, object_in, page_of
from mageflow.engine.rest.serializers import resource
from mageflow.engine.values import JsonObject


def routes(tenant_id: str, repository: Repository, filters: Filters) -> list[web.RouteDef]:
    """Return the routes of this module."""
    handlers = _Filters(tenant_id, repository, filters)
    return [
        web.get(f"{STABLE_TENANT}/filters", handlers.list_filters),
        web.post(f"{STABLE_TENANT}/filters", handlers.create),
        web.get(f"{STABLE_TENANT}/filters/{{id}}", handlers.details),
        web.patch(f"{STABLE_TENANT}/filters/{{id}}", handlers.update),
        web.delete(f"{STABLE_TENANT}/filters/{{id}}", handlers.delete),
    ]


class _Filters:
    def __init__(self, tenant_id: str, repository: Repository, filters: Filters) -> None:
        self._tenant_id = tenant_id
        self._repository = repository
        self._filters = filters

    async def list_filters(self, request: web.Request) -> web.Response:
        workflows, scopes = set(many(request, "workflowIds")), set(many(request, "scopes"))
        rows = [
            self._row(each)
            for each in self._filters.entries.values()
            if (not workflows or each.workflow_id in workflows) and (not scopes or each.scope in scopes)
        ]
        return web.json_response(page_of(request, rows))

    async def create(self, request: web.Request) -> web.Response:
        body = await body_of(request)
        workflow = self._repository.workflows.get(str(body.get("workflowId")))
        if workflow is None:
            raise InvalidRequestError(f"no workflow {body.get('workflowId')}")
        added = self._filters.add(
            workflow,
            scope=str(body.get("scope", "")),
            expression=str(body.get("expression", "")),
            payload=object_in(body, "payload"),
        )
        return web.json_response(self._row(added))

    async def details(self, request: web.Request) -> web.Response:
        return web.json_response(self._row(self._filters.get(request.match_info["id"])))

    async def update(self, request: web.Request) -> web.Response:
        body = await body_of(request)
        changed = self._filters.get(request.match_info["id"])
        changed.scope = str(body.get("scope", changed.scope))
        changed.expression = str(body.get("expression", changed.expression))
        if "payload" in body:
            changed.payload = object_in(body, "payload")
        return web.json_response(self._row(changed))

    async def delete(self, request: web.Request) -> web.Response:
        deleted = self._filters.get(request.match_info["id"])
        self._filters.remove(deleted)
        return web.json_response(self._row(deleted))

    def _row(self, each: Filter) -> JsonObject:
        return {
            "metadata": resource(each.id, each.created_at),
            "tenantId": self._tenant_id,
            "workflowId": each.workflow_id,
            "scope": each.scope,
            "expression": each.expression,
            "payload": each.payload,
            "isDeclarative": each.is_declared,
        }
