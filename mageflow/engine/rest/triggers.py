"""Crons and scheduled runs over REST."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote

from aiohttp import web

from mageflow.engine.crons import Cron
from mageflow.engine.documents import iso
from mageflow.engine.errors import InvalidRequestError, RequestError
from mageflow.engine.model import JsonObject, Workflow
from mageflow.engine.rest.request import TENANT, body_of, integer, many, metadata_pairs, moment, page
from mageflow.engine.rest.shapes import as_object, resource, without_nulls
from mageflow.engine.schedules import Schedule
from mageflow.engine.trigger import Trigger

if TYPE_CHECKING:
    from mageflow.engine.core import Engine

_PAGE_SIZE = 50


def routes(engine: Engine) -> list[web.RouteDef]:
    """Return the routes of this module; literal paths stand before those with a name in the same place."""
    crons, schedules = _Crons(engine), _Schedules(engine)
    return [
        web.get(f"{TENANT}/workflows/crons", crons.list_crons),
        web.get(f"{TENANT}/workflows/crons/{{id}}", crons.details),
        web.patch(f"{TENANT}/workflows/crons/{{id}}", crons.update),
        web.delete(f"{TENANT}/workflows/crons/{{id}}", crons.delete),
        web.post(f"{TENANT}/workflows/crons/{{id}}", crons.run_now),
        web.get(f"{TENANT}/workflows/scheduled", schedules.list_schedules),
        web.post(f"{TENANT}/workflows/scheduled/bulk-delete", schedules.bulk_delete),
        web.post(f"{TENANT}/workflows/scheduled/bulk-update", schedules.bulk_update),
        web.get(f"{TENANT}/workflows/scheduled/{{id}}", schedules.details),
        web.patch(f"{TENANT}/workflows/scheduled/{{id}}", schedules.update),
        web.delete(f"{TENANT}/workflows/scheduled/{{id}}", schedules.delete),
        web.post(f"{TENANT}/workflows/{{name}}/crons", crons.create),
        web.post(f"{TENANT}/workflows/{{name}}/scheduled", schedules.create),
    ]


def _workflow(engine: Engine, request: web.Request) -> Workflow:
    name = unquote(request.match_info["name"])
    workflow = engine.store.workflow_named(name)
    if workflow is None:
        raise InvalidRequestError(f"unknown workflow {name!r}: start a worker that registers it first")
    return workflow


class _Crons:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def create(self, request: web.Request) -> web.Response:
        workflow = _workflow(self._engine, request)
        body = await body_of(request)
        cron = self._engine.crons.add(
            workflow,
            str(body.get("cronExpression", "")),
            name=str(body.get("cronName", "")),
            input=as_object(body.get("input")),
            metadata=as_object(body.get("additionalMetadata")),
            priority=body.get("priority"),
        )
        return web.json_response(self._row(cron))

    async def list_crons(self, request: web.Request) -> web.Response:
        query = request.query
        pairs = metadata_pairs(many(request, "additionalMetadata"))
        rows = [
            self._row(cron)
            for cron in self._engine.crons.entries.values()
            if query.get("workflowId") in (None, cron.workflow.id)
            and query.get("workflowName") in (None, cron.workflow.name)
            and query.get("cronName") in (None, cron.name)
            and all(str(cron.metadata.get(key)) == value for key, value in pairs)
        ]
        return web.json_response(
            page(rows, offset=integer(request, "offset", 0), limit=integer(request, "limit", _PAGE_SIZE))
        )

    async def details(self, request: web.Request) -> web.Response:
        return web.json_response(self._row(self._engine.crons.get(request.match_info["id"])))

    async def update(self, request: web.Request) -> web.Response:
        cron = self._engine.crons.get(request.match_info["id"])
        body = await body_of(request)
        if isinstance(body.get("enabled"), bool):
            self._engine.crons.set_enabled(cron, enabled=body["enabled"])
        return web.Response(status=204)

    async def delete(self, request: web.Request) -> web.Response:
        self._engine.crons.remove(self._engine.crons.get(request.match_info["id"]))
        return web.Response(status=204)

    async def run_now(self, request: web.Request) -> web.Response:
        run = self._engine.crons.run_now(self._engine.crons.get(request.match_info["id"]))
        return web.json_response({"externalId": run.id})

    def _row(self, cron: Cron) -> JsonObject:
        return without_nulls(
            {
                "metadata": resource(cron.id, cron.created_at),
                "tenantId": self._engine.tenant_id,
                "workflowVersionId": cron.workflow.current.id,
                "workflowId": cron.workflow.id,
                "workflowName": cron.workflow.name,
                "cron": cron.expression,
                "name": cron.name or None,
                "input": cron.input,
                "additionalMetadata": cron.metadata,
                "enabled": cron.enabled,
                "method": "DEFAULT" if cron.is_declared else "API",
                "priority": cron.priority,
            }
        )


class _Schedules:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def create(self, request: web.Request) -> web.Response:
        workflow = _workflow(self._engine, request)
        body = await body_of(request)
        at = moment(body.get("triggerAt"), "triggerAt")
        if at is None:
            raise InvalidRequestError("triggerAt is missing")
        trigger = Trigger(
            name=workflow.name,
            input=as_object(body.get("input")),
            metadata=as_object(body.get("additionalMetadata")),
            priority=body.get("priority"),
        )
        return web.json_response(self._row(self._engine.schedules.add(trigger, at)))

    async def list_schedules(self, request: web.Request) -> web.Response:
        chosen = self._select(
            workflow_id=request.query.get("workflowId"),
            parent_task_id=request.query.get("parentStepRunId"),
            statuses=set(many(request, "statuses")),
            pairs=metadata_pairs(many(request, "additionalMetadata")),
        )
        rows = [self._row(schedule) for schedule in chosen]
        return web.json_response(
            page(rows, offset=integer(request, "offset", 0), limit=integer(request, "limit", _PAGE_SIZE))
        )

    async def details(self, request: web.Request) -> web.Response:
        return web.json_response(self._row(self._engine.schedules.get(request.match_info["id"])))

    async def update(self, request: web.Request) -> web.Response:
        schedule = self._engine.schedules.get(request.match_info["id"])
        self._move(schedule, await body_of(request))
        return web.json_response(self._row(schedule))

    async def delete(self, request: web.Request) -> web.Response:
        self._engine.schedules.remove(self._engine.schedules.get(request.match_info["id"]))
        return web.Response(status=204)

    async def bulk_delete(self, request: web.Request) -> web.Response:
        body = await body_of(request)
        ids = [str(each) for each in body.get("scheduledWorkflowRunIds") or ()]
        chosen = as_object(body.get("filter"))
        if chosen:
            pairs = metadata_pairs(list(chosen.get("additionalMetadata") or ()))
            ids += [
                each.id
                for each in self._select(
                    workflow_id=chosen.get("workflowId"),
                    parent_task_id=chosen.get("parentStepRunId"),
                    statuses=set(),
                    pairs=pairs,
                )
            ]
        deleted: list[str] = []
        errors: list[JsonObject] = []
        for each in ids:
            try:
                self._engine.schedules.remove(self._engine.schedules.get(each))
                deleted.append(each)
            except RequestError as error:
                errors.append({"id": each, "error": str(error)})
        return web.json_response({"deletedIds": deleted, "errors": errors})

    async def bulk_update(self, request: web.Request) -> web.Response:
        body = await body_of(request)
        updated: list[str] = []
        errors: list[JsonObject] = []
        for item in body.get("updates") or ():
            change = as_object(item)
            try:
                schedule = self._engine.schedules.get(str(change.get("id")))
                self._move(schedule, change)
                updated.append(schedule.id)
            except RequestError as error:
                errors.append({"id": str(change.get("id")), "error": str(error)})
        return web.json_response({"updatedIds": updated, "errors": errors})

    def _move(self, schedule: Schedule, body: JsonObject) -> None:
        at = moment(body.get("triggerAt"), "triggerAt")
        if at is None:
            raise InvalidRequestError("triggerAt is missing")
        self._engine.schedules.move(schedule, at)

    def _select(
        self,
        *,
        workflow_id: str | None,
        parent_task_id: str | None,
        statuses: set[str],
        pairs: list[tuple[str, str]],
    ) -> list[Schedule]:
        return [
            each
            for each in self._engine.schedules.entries.values()
            if workflow_id in (None, each.workflow.id)
            and parent_task_id in (None, each.trigger.parent_task_id)
            and (not statuses or _status(each) in statuses)
            and all(str(each.metadata.get(key)) == value for key, value in pairs)
        ]

    def _row(self, schedule: Schedule) -> JsonObject:
        run = schedule.run
        return without_nulls(
            {
                "metadata": resource(schedule.id, schedule.created_at),
                "tenantId": self._engine.tenant_id,
                "workflowVersionId": schedule.workflow.current.id,
                "workflowId": schedule.workflow.id,
                "workflowName": schedule.workflow.name,
                "triggerAt": iso(schedule.at),
                "input": schedule.trigger.input,
                "additionalMetadata": schedule.metadata,
                "workflowRunCreatedAt": iso(run.created_at) if run else None,
                "workflowRunId": run.id if run else None,
                "workflowRunStatus": _run_status(schedule) if run else None,
                "method": "API",
                "priority": schedule.trigger.priority,
            }
        )


def _status(schedule: Schedule) -> str:
    return "SCHEDULED" if schedule.run is None else _run_status(schedule)


def _run_status(schedule: Schedule) -> str:
    """Return the older vocabulary of scheduled runs, in which a completed run SUCCEEDED."""
    if schedule.run is None:
        return "PENDING"
    status = schedule.run.listed_status.public
    return "SUCCEEDED" if status == "COMPLETED" else status
