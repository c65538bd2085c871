"""Runs and tasks over REST: list, details, cancel, replay, trigger, logs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from mageflow.engine.documents import iso
from mageflow.engine.errors import InvalidRequestError
from mageflow.engine.model import JsonObject, LogLine
from mageflow.engine.rest import shapes
from mageflow.engine.rest.request import STABLE, STABLE_TENANT, body_of, integer, many, metadata_pairs, moment, page
from mageflow.engine.run_filter import RunFilter
from mageflow.engine.trigger import Trigger

if TYPE_CHECKING:
    from mageflow.engine.core import Engine

_PAGE_SIZE = 50
_LINES_PER_PAGE = 1000


def routes(engine: Engine) -> list[web.RouteDef]:
    """Return the routes of this module."""
    handlers = _Runs(engine)
    return [
        web.get(f"{STABLE}/workflow-runs/{{id}}", handlers.details),
        web.get(f"{STABLE}/workflow-runs/{{id}}/status", handlers.status),
        web.get(f"{STABLE_TENANT}/workflow-runs", handlers.list_runs),
        web.get(f"{STABLE_TENANT}/workflow-runs/external-ids", handlers.list_ids),
        web.post(f"{STABLE_TENANT}/workflow-runs/trigger", handlers.trigger),
        web.post(f"{STABLE_TENANT}/tasks/cancel", handlers.cancel),
        web.post(f"{STABLE_TENANT}/tasks/replay", handlers.replay),
        web.get(f"{STABLE}/tasks/{{id}}", handlers.task),
        web.get(f"{STABLE}/tasks/{{id}}/task-events", handlers.events),
        web.get(f"{STABLE}/tasks/{{id}}/logs", handlers.logs),
        web.post(f"{STABLE}/tasks/{{id}}/restore", handlers.restore),
        web.post(f"{STABLE_TENANT}/durable-tasks/branch", handlers.branch),
    ]


class _Runs:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def details(self, request: web.Request) -> web.Response:
        run = self._engine.store.run(request.match_info["id"])
        return web.json_response(shapes.run_details(self._engine, run))

    async def status(self, request: web.Request) -> web.Response:
        return web.json_response(self._engine.store.run(request.match_info["id"]).listed_status.public)

    async def list_runs(self, request: web.Request) -> web.Response:
        payloads = request.query.get("include_payloads", "true") != "false"
        chosen = self._engine.runs.select(_filter_from_query(request))
        if request.query.get("only_tasks") == "true":
            tasks = [task for run in chosen for task in shapes.listed_tasks(run)]
            rows = [shapes.task_summary(self._engine, task, payloads=payloads) for task in tasks]
            return web.json_response(page(rows, **_bounds(request)))
        # Rows are built for the page alone: a run's JSON is large.
        bounds = _bounds(request)
        shown = page([{"run": run} for run in chosen], **bounds)
        shown["rows"] = [shapes.run_row(self._engine, row["run"], payloads=payloads) for row in shown["rows"]]
        return web.json_response(shown)

    async def list_ids(self, request: web.Request) -> web.Response:
        return web.json_response([run.id for run in self._engine.runs.select(_filter_from_query(request))])

    async def trigger(self, request: web.Request) -> web.Response:
        body = await body_of(request)
        run = self._engine.runs.start(
            Trigger(
                name=str(body.get("workflowName", "")),
                input=shapes.as_object(body.get("input")),
                metadata=shapes.as_object(body.get("additionalMetadata")),
                priority=body.get("priority"),
            )
        )
        return web.json_response(shapes.run_details(self._engine, run))

    async def cancel(self, request: web.Request) -> web.Response:
        body = await body_of(request)
        return web.json_response({"ids": self._engine.runs.cancel_listed(self._chosen_ids(body))})

    async def replay(self, request: web.Request) -> web.Response:
        body = await body_of(request)
        return web.json_response({"ids": self._engine.runs.replay_listed(self._chosen_ids(body))})

    async def task(self, request: web.Request) -> web.Response:
        task = self._engine.store.task(request.match_info["id"])
        return web.json_response(shapes.task_summary(self._engine, task))

    async def events(self, request: web.Request) -> web.Response:
        rows = shapes.task_events(self._engine.store.task(request.match_info["id"]))
        return web.json_response(
            page(rows, offset=integer(request, "offset", 0), limit=integer(request, "limit", _LINES_PER_PAGE))
        )

    async def logs(self, request: web.Request) -> web.Response:
        task = self._engine.store.task(request.match_info["id"])
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
            for line in self._log_lines(request)
        ]
        return web.json_response(
            page(rows, offset=integer(request, "offset", 0), limit=integer(request, "limit", _LINES_PER_PAGE))
        )

    async def restore(self, request: web.Request) -> web.Response:
        task = self._engine.store.task(request.match_info["id"])
        return web.json_response({"requeued": self._engine.durable.restore(task)})

    async def branch(self, request: web.Request) -> web.Response:
        body = await body_of(request)
        task = self._engine.store.task(str(body.get("taskExternalId", "")))
        node_id = body.get("nodeId")
        if not isinstance(node_id, int):
            raise InvalidRequestError("nodeId must be an integer")
        parent_branch = body.get("branchId")
        branch_id = self._engine.durable.branch(
            task, node_id, parent_branch if isinstance(parent_branch, int) else None
        )
        return web.json_response({"taskExternalId": task.id, "nodeId": node_id, "branchId": branch_id})

    def _log_lines(self, request: web.Request) -> list[LogLine]:
        task = self._engine.store.task(request.match_info["id"])
        levels = {level.upper() for level in many(request, "levels")}
        since, until = moment(request.query.get("since"), "since"), moment(request.query.get("until"), "until")
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

    def _chosen_ids(self, body: JsonObject) -> list[str]:
        """Return the ids a bulk request means; one that names none means none."""
        ids = body.get("externalIds")
        filter_document = body.get("filter")
        if ids or not isinstance(filter_document, dict):
            return [str(each) for each in ids or ()]
        return [run.id for run in self._engine.runs.select(_filter_from_body(filter_document))]


def _filter_from_query(request: web.Request) -> RunFilter:
    return RunFilter(
        since=moment(request.query.get("since"), "since"),
        until=moment(request.query.get("until"), "until"),
        statuses=frozenset(many(request, "statuses")),
        workflow_ids=frozenset(many(request, "workflow_ids")),
        metadata=tuple(metadata_pairs(many(request, "additional_metadata"))),
        worker_id=request.query.get("worker_id"),
        parent_task_id=request.query.get("parent_task_external_id"),
        event_id=request.query.get("triggering_event_external_id"),
    )


def _filter_from_body(document: JsonObject) -> RunFilter:
    return RunFilter(
        since=moment(document.get("since"), "since"),
        until=moment(document.get("until"), "until"),
        statuses=frozenset(document.get("statuses") or ()),
        workflow_ids=frozenset(document.get("workflowIds") or ()),
        metadata=tuple(metadata_pairs(list(document.get("additionalMetadata") or ()))),
    )


def _bounds(request: web.Request) -> dict[str, int]:
    return {"offset": integer(request, "offset", 0), "limit": integer(request, "limit", _PAGE_SIZE)}
