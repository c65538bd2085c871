"""Crons over REST."""

from __future__ import annotations

from aiohttp import web

from mageflow.engine.crons import Cron, Crons
from mageflow.engine.errors import InvalidRequestError
from mageflow.engine.repository import Repository
from mageflow.engine.rest.request import TENANT, body_of, many, object_in, page_of, plain_metadata_pairs, workflow_in
from mageflow.engine.rest.serializers import resource, without_nulls
from mageflow.engine.values import JsonObject


def routes(tenant_id: str, repository: Repository, crons: Crons) -> list[web.RouteDef]:
    """Return the routes of this module. A literal path must stand before one with a variable in the same place."""
    handlers = _Crons(tenant_id, repository, crons)
    return [
        web.get(f"{TENANT}/workflows/crons", handlers.list_crons),
        web.get(f"{TENANT}/workflows/crons/{{id}}", handlers.details),
        web.patch(f"{TENANT}/workflows/crons/{{id}}", handlers.update),
        web.delete(f"{TENANT}/workflows/crons/{{id}}", handlers.delete),
        web.post(f"{TENANT}/workflows/crons/{{id}}", handlers.run_now),
        web.post(f"{TENANT}/workflows/{{name}}/crons", handlers.create),
    ]


class _Crons:
    def __init__(self, tenant_id: str, repository: Repository, crons: Crons) -> None:
        self._tenant_id = tenant_id
        self._repository = repository
        self._crons = crons

    async def create(self, request: web.Request) -> web.Response:
        workflow = workflow_in(self._repository, request)
        body = await body_of(request)
        name = str(body.get("cronName") or "")
        if not name:
            raise InvalidRequestError("cron name is required")
        cron = self._crons.add(
            workflow,
            str(body.get("cronExpression", "")),
            name=name,
            input=object_in(body, "input"),
            metadata=object_in(body, "additionalMetadata"),
            priority=body.get("priority"),
        )
        return web.json_response(self._row(cron))

    async def list_crons(self, request: web.Request) -> web.Response:
        query = request.query
        pairs = plain_metadata_pairs(many(request, "additionalMetadata"))
        rows = [
            self._row(cron)
            for cron in self._crons.entries.values()
            if query.get("workflowId") in (None, cron.workflow.id)
            and query.get("workflowName") in (None, cron.workflow.name)
            and query.get("cronName") in (None, cron.name)
            and all(str(cron.metadata.get(key)) == value for key, value in pairs)
        ]
        return web.json_response(page_of(request, rows))

    async def details(self, request: web.Request) -> web.Response:
        return web.json_response(self._row(self._cron(request)))

    async def update(self, request: web.Request) -> web.Response:
        cron = self._cron(request)
        body = await body_of(request)
        if isinstance(body.get("enabled"), bool):
            self._crons.set_enabled(cron, enabled=body["enabled"])
        return web.Response(status=204)

    async def delete(self, request: web.Request) -> web.Response:
        self._crons.remove(self._cron(request))
        return web.Response(status=204)

    async def run_now(self, request: web.Request) -> web.Response:
        return web.json_response({"externalId": self._crons.run_now(self._cron(request)).id})

    def _cron(self, request: web.Request) -> Cron:
        return self._crons.get(request.match_info["id"])

    def _row(self, cron: Cron) -> JsonObject:
        return without_nulls(
            {
                "metadata": resource(cron.id, cron.created_at),
                "tenantId": self._tenant_id,
                "workflowVersionId": cron.workflow.current.id,
                "workflowId": cron.workflow.id,
                "workflowName": cron.workflow.name,
                "cron": cron.expression,
                "name": cron.name or None,
                "input": cron.input,
                "additionalMetadata": cron.metadata,
                "enabled": cron.enabled,
                "method": "DEFAULT" if cron.is_declared else "API",
                "priority": cron.priority or cron.workflow.current.default_priority,
            }
        )
