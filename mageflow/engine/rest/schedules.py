"""Scheduled runs over REST."""

from __future__ import annotations

from aiohttp import web

from mageflow.engine.errors import InvalidRequestError, RequestError
from mageflow.engine.formats import iso
from mageflow.engine.model import Run
from mageflow.engine.repository import Repository
from mageflow.engine.rest.request import (
    TENANT,
    body_of,
    many,
    object_in,
    page_of,
    plain_metadata_pairs,
    time_from,
    workflow_in,
)
from mageflow.engine.rest.serializers import NO_TIME, as_object, display_name, resource, without_nulls
from mageflow.engine.schedules import Schedule, Schedules
from mageflow.engine.trigger import Trigger
from mageflow.engine.values import JsonObject


def routes(tenant_id: str, repository: Repository, schedules: Schedules) -> list[web.RouteDef]:
    """Return the routes of this module. A literal path must stand before one with a variable in the same place."""
    handlers = _Schedules(tenant_id, repository, schedules)
    return [
        web.get(f"{TENANT}/workflows/scheduled", handlers.list_schedules),
        web.post(f"{TENANT}/workflows/scheduled/bulk-delete", handlers.bulk_delete),
        web.post(f"{TENANT}/workflows/scheduled/bulk-update", handlers.bulk_update),
        web.get(f"{TENANT}/workflows/scheduled/{{id}}", handlers.details),
        web.patch(f"{TENANT}/workflows/scheduled/{{id}}", handlers.update),
        web.delete(f"{TENANT}/workflows/scheduled/{{id}}", handlers.delete),
        web.post(f"{TENANT}/workflows/{{name}}/scheduled", handlers.create),
    ]


class _Schedules:
    def __init__(self, tenant_id: str, repository: Repository, schedules: Schedules) -> None:
        self._tenant_id = tenant_id
        self._repository = repository
        self._schedules = schedules

    async def create(self, request: web.Request) -> web.Response:
        workflow = workflow_in(self._repository, request)
        body = await body_of(request)
        trigger_at = time_from(body.get("triggerAt"), "triggerAt")
        if trigger_at is None:
            raise InvalidRequestError("triggerAt is missing")
        trigger = Trigger(
            workflow_name=workflow.name,
            input=object_in(body, "input"),
            metadata=object_in(body, "additionalMetadata"),
            priority=body.get("priority"),
        )
        return web.json_response(self._row(self._schedules.add(trigger, trigger_at)))

    async def list_schedules(self, request: web.Request) -> web.Response:
        chosen = self._select(
            workflow_id=request.query.get("workflowId"),
            parent_task_id=request.query.get("parentStepRunId"),
            statuses=set(many(request, "statuses")),
            pairs=plain_metadata_pairs(many(request, "additionalMetadata")),
        )
        return web.json_response(page_of(request, [self._row(schedule) for schedule in chosen]))

    async def details(self, request: web.Request) -> web.Response:
        return web.json_response(self._row(self._schedules.get(request.match_info["id"])))

    async def update(self, request: web.Request) -> web.Response:
        schedule = self._schedules.get(request.match_info["id"])
        self._move(schedule, await body_of(request))
        return web.json_response(self._row(schedule))

    async def delete(self, request: web.Request) -> web.Response:
        self._schedules.remove(self._schedules.get(request.match_info["id"]))
        return web.Response(status=204)

    async def bulk_delete(self, request: web.Request) -> web.Response:
        body = await body_of(request)
        ids = [str(each) for each in body.get("scheduledWorkflowRunIds") or ()]
        if not ids and body.get("filter") is None:
            raise InvalidRequestError("Provide scheduledWorkflowRunIds or filter.")
        chosen = object_in(body, "filter")
        if chosen:
            pairs = plain_metadata_pairs(list(chosen.get("additionalMetadata") or ()))
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
                self._schedules.remove(self._schedules.get(each))
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
                schedule = self._schedules.get(str(change.get("id")))
                self._move(schedule, change)
                updated.append(schedule.id)
            except RequestError as error:
                errors.append({"id": str(change.get("id")), "error": str(error)})
        return web.json_response({"updatedIds": updated, "errors": errors})

    def _move(self, schedule: Schedule, body: JsonObject) -> None:
        trigger_at = time_from(body.get("triggerAt"), "triggerAt")
        if trigger_at is None:
            raise InvalidRequestError("triggerAt is missing")
        self._schedules.move(schedule, trigger_at)

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
            for each in self._schedules.entries.values()
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
                "tenantId": self._tenant_id,
                "workflowVersionId": schedule.workflow.current.id,
                "workflowId": schedule.workflow.id,
                "workflowName": schedule.workflow.name,
                "triggerAt": iso(schedule.trigger_at),
                "input": schedule.trigger.input,
                "additionalMetadata": schedule.metadata,
                "workflowRunCreatedAt": iso(run.created_at) if run else NO_TIME,
                "workflowRunName": display_name(run) if run else "",
                "workflowRunId": run.id if run else None,
                "workflowRunStatus": _run_status(run) if run else None,
                "method": "API",
                "priority": schedule.trigger.priority or schedule.workflow.current.default_priority,
            }
        )


def _status(schedule: Schedule) -> str:
    return "SCHEDULED" if schedule.run is None else _run_status(schedule.run)


def _run_status(run: Run) -> str:
    """Return the status in the older words of scheduled runs, where COMPLETED is SUCCEEDED."""
    status = run.listed_status.public
    return "SUCCEEDED" if status == "COMPLETED" else status
