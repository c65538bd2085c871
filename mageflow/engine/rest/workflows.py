"""Workflows over REST: list, details, versions, pause, delete."""

from __future__ import annotations

import json

from aiohttp import web

from mageflow.engine.definitions import Pause, Workflow, WorkflowVersion
from mageflow.engine.durations import parse_duration
from mageflow.engine.errors import InvalidRequestError, NotFoundError
from mageflow.engine.pauses import Pauses
from mageflow.engine.registry import Registry
from mageflow.engine.repository import Repository
from mageflow.engine.rest.request import TENANT, body_of, object_in, page_of
from mageflow.engine.rest.serializers import resource, without_nulls
from mageflow.engine.rest.workflow_config import workflow_config
from mageflow.engine.values import JsonObject

_DEFAULT_PAUSE_TTL = "24h"
_QUEUE = "QUEUE"


def routes(tenant_id: str, repository: Repository, pauses: Pauses, registry: Registry) -> list[web.RouteDef]:
    """Return the routes of this module."""
    handlers = _Workflows(tenant_id, repository, pauses, registry)
    return [
        web.get(f"{TENANT}/workflows", handlers.list_workflows),
        web.get("/api/v1/workflows/{id}", handlers.details),
        web.patch("/api/v1/workflows/{id}", handlers.update),
        web.delete("/api/v1/workflows/{id}", handlers.delete),
        web.get("/api/v1/workflows/{id}/versions", handlers.version),
    ]


class _Workflows:
    def __init__(self, tenant_id: str, repository: Repository, pauses: Pauses, registry: Registry) -> None:
        self._tenant_id = tenant_id
        self._repository = repository
        self._pauses = pauses
        self._registry = registry

    async def list_workflows(self, request: web.Request) -> web.Response:
        name = request.query.get("name", "")
        rows = [
            self._row(workflow)
            for workflow in self._repository.workflows.values()
            if name.lower() in workflow.name.lower()
        ]
        return web.json_response(page_of(request, rows))

    async def details(self, request: web.Request) -> web.Response:
        return web.json_response(self._row(self._workflow(request)))

    async def version(self, request: web.Request) -> web.Response:
        workflow = self._workflow(request)
        wanted = request.query.get("version")
        version = next((each for each in workflow.versions if each.id == wanted), None) if wanted else workflow.current
        if version is None:
            raise NotFoundError(f"workflow {workflow.name} has no version {wanted}")
        return web.json_response(
            without_nulls(
                {
                    **self._version(version),
                    "sticky": version.sticky,
                    "defaultPriority": version.default_priority,
                    "workflow": self._row(workflow),
                    "inputJsonSchema": json.loads(version.input_schema) if version.input_schema else None,
                    "workflowConfig": workflow_config(version),
                }
            )
        )

    async def update(self, request: web.Request) -> web.Response:
        body = await body_of(request)
        workflow = self._workflow(request)
        pause = object_in(body, "pause")
        action = pause.get("action")
        if action == "pause":
            self._pauses.pause(
                workflow,
                Pause(
                    queue_crons=pause.get("pausedWorkflowCronRunQueueBehavior", _QUEUE) == _QUEUE,
                    queue_schedules=pause.get("pausedWorkflowScheduledRunQueueBehavior", _QUEUE) == _QUEUE,
                    ttl=parse_duration(str(pause.get("pausedWorkflowQueueTTL") or _DEFAULT_PAUSE_TTL)),
                ),
            )
        elif action == "unpause":
            self._pauses.unpause(workflow)
        elif body.get("isPaused") is not None:
            raise InvalidRequestError('use {"pause": {"action": "pause"}} or {"pause": {"action": "unpause"}}')
        return web.json_response(self._row(workflow))

    async def delete(self, request: web.Request) -> web.Response:
        workflow = self._workflow(request)
        self._registry.delete(workflow)
        return web.Response(status=204)

    def _workflow(self, request: web.Request) -> Workflow:
        workflow = self._repository.workflows.get(request.match_info["id"])
        if workflow is None:
            raise NotFoundError(f"no workflow {request.match_info['id']}")
        return workflow

    def _row(self, workflow: Workflow) -> JsonObject:
        pause = workflow.pause
        return without_nulls(
            {
                "metadata": resource(workflow.id, workflow.created_at),
                "name": workflow.name,
                "tenantId": self._tenant_id,
                "isPaused": pause is not None,
                "pausedWorkflowCronRunQueueBehavior": _behavior(pause.queue_crons) if pause else None,
                "pausedWorkflowScheduledRunQueueBehavior": _behavior(pause.queue_schedules) if pause else None,
                "versions": [self._version(version) for version in reversed(workflow.versions)],
            }
        )

    def _version(self, version: WorkflowVersion) -> JsonObject:
        return {
            "metadata": resource(version.id, version.created_at),
            "version": version.id,
            "order": version.workflow.versions.index(version),
            "workflowId": version.workflow.id,
        }


def _behavior(queue: bool) -> str:  # noqa: FBT001 - one of two words
    return _QUEUE if queue else "DROP"
