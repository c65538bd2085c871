"""Runs over REST: list, details, trigger, cancel, replay."""

from __future__ import annotations

from aiohttp import web

from mageflow.engine.bulk import BulkRequests
from mageflow.engine.repository import Repository
from mageflow.engine.rest import serializers
from mageflow.engine.rest.request import (
    STABLE,
    STABLE_TENANT,
    body_of,
    many,
    metadata_pairs,
    object_in,
    page_of,
    time_from,
)
from mageflow.engine.run_filter import RunFilter
from mageflow.engine.runs import Runs
from mageflow.engine.trigger import Trigger
from mageflow.engine.values import JsonObject


def routes(tenant_id: str, repository: Repository, runs: Runs, bulk: BulkRequests) -> list[web.RouteDef]:
    """Return the routes of this module."""
    handlers = _Runs(tenant_id, repository, runs, bulk)
    return [
        web.get(f"{STABLE}/workflow-runs/{{id}}", handlers.details),
        web.get(f"{STABLE}/workflow-runs/{{id}}/status", handlers.status),
        web.get(f"{STABLE_TENANT}/workflow-runs", handlers.list_runs),
        web.get(f"{STABLE_TENANT}/workflow-runs/external-ids", handlers.list_ids),
        web.post(f"{STABLE_TENANT}/workflow-runs/trigger", handlers.trigger),
        web.post(f"{STABLE_TENANT}/tasks/cancel", handlers.cancel),
        web.post(f"{STABLE_TENANT}/tasks/replay", handlers.replay),
    ]


class _Runs:
    def __init__(self, tenant_id: str, repository: Repository, runs: Runs, bulk: BulkRequests) -> None:
        self._tenant_id = tenant_id
        self._repository = repository
        self._runs = runs
        self._bulk = bulk

    async def details(self, request: web.Request) -> web.Response:
        run = self._repository.run(request.match_info["id"])
        return web.json_response(serializers.run_details(self._tenant_id, run))

    async def status(self, request: web.Request) -> web.Response:
        return web.json_response(self._repository.run(request.match_info["id"]).listed_status.public)

    async def list_runs(self, request: web.Request) -> web.Response:
        payloads = request.query.get("include_payloads") == "true"
        chosen = self._repository.select(_filter_from_query(request))
        if request.query.get("only_tasks") == "true":
            tasks = [task for run in chosen for task in serializers.listed_tasks(run)]
            rows = [serializers.task_row(self._tenant_id, task, payloads=payloads) for task in tasks]
            return web.json_response(page_of(request, rows))
        # The JSON of a run is large, so only the rows of this page are built.
        page = page_of(request, [{"run": run} for run in chosen])
        page["rows"] = [serializers.run_row(self._tenant_id, row["run"], payloads=payloads) for row in page["rows"]]
        return web.json_response(page)

    async def list_ids(self, request: web.Request) -> web.Response:
        return web.json_response([run.id for run in self._repository.select(_filter_from_query(request))])

    async def trigger(self, request: web.Request) -> web.Response:
        body = await body_of(request)
        run = self._runs.start(
            Trigger(
                workflow_name=str(body.get("workflowName", "")),
                input=object_in(body, "input"),
                metadata=object_in(body, "additionalMetadata"),
                priority=body.get("priority"),
            )
        )
        return web.json_response(serializers.run_details(self._tenant_id, run))

    async def cancel(self, request: web.Request) -> web.Response:
        body = await body_of(request)
        return web.json_response({"ids": self._bulk.cancel(self._chosen_ids(body))})

    async def replay(self, request: web.Request) -> web.Response:
        body = await body_of(request)
        return web.json_response({"ids": self._bulk.replay(self._chosen_ids(body))})

    def _chosen_ids(self, body: JsonObject) -> list[str]:
        """Return the ids that a bulk request lists, or that its filter selects. Without either, there are none."""
        ids = body.get("externalIds")
        filter_document = body.get("filter")
        if ids or not isinstance(filter_document, dict):
            return [str(each) for each in ids or ()]
        return [run.id for run in self._repository.select(_filter_from_body(filter_document))]


def _filter_from_query(request: web.Request) -> RunFilter:
    return RunFilter(
        since=time_from(request.query.get("since"), "since"),
        until=time_from(request.query.get("until"), "until"),
        statuses=frozenset(many(request, "statuses")),
        workflow_ids=frozenset(many(request, "workflow_ids")),
        metadata=tuple(metadata_pairs(many(request, "additional_metadata"))),
        worker_id=request.query.get("worker_id"),
        parent_task_id=request.query.get("parent_task_external_id"),
        event_id=request.query.get("triggering_event_external_id"),
    )


def _filter_from_body(document: JsonObject) -> RunFilter:
    return RunFilter(
        since=time_from(document.get("since"), "since"),
        until=time_from(document.get("until"), "until"),
        statuses=frozenset(document.get("statuses") or ()),
        workflow_ids=frozenset(document.get("workflowIds") or ()),
        metadata=tuple(metadata_pairs(list(document.get("additionalMetadata") or ()))),
    )
