"""Workers over REST: list, details, pause."""

from __future__ import annotations

from aiohttp import web

from mageflow.engine.contracts import dispatcher_pb2
from mageflow.engine.errors import InvalidRequestError
from mageflow.engine.formats import iso
from mageflow.engine.model import Worker
from mageflow.engine.repository import Repository
from mageflow.engine.rest.request import TENANT, body_of
from mageflow.engine.rest.serializers import resource, without_nulls
from mageflow.engine.values import JsonObject
from mageflow.engine.workers import Workers


def routes(repository: Repository, workers: Workers) -> list[web.RouteDef]:
    """Return the routes of this module."""
    handlers = _Workers(repository, workers)
    return [
        web.get(f"{TENANT}/worker", handlers.list_workers),
        web.get("/api/v1/workers/{id}", handlers.details),
        web.patch("/api/v1/workers/{id}", handlers.update),
    ]


class _Workers:
    def __init__(self, repository: Repository, workers: Workers) -> None:
        self._repository = repository
        self._workers = workers

    async def list_workers(self, _request: web.Request) -> web.Response:
        return web.json_response({"rows": [_row(worker) for worker in self._repository.workers.values()]})

    async def details(self, request: web.Request) -> web.Response:
        return web.json_response(_row(self._repository.worker(request.match_info["id"])))

    async def update(self, request: web.Request) -> web.Response:
        body = await body_of(request)
        worker = self._repository.worker(request.match_info["id"])
        paused = body.get("isPaused")
        if not isinstance(paused, bool):
            raise InvalidRequestError("isPaused must be true or false")
        self._workers.set_paused(worker, paused=paused)
        return web.json_response(_row(worker))


def _row(worker: Worker) -> JsonObject:
    status = "INACTIVE" if not worker.is_live else "PAUSED" if worker.is_paused else "ACTIVE"
    return without_nulls(
        {
            "metadata": resource(worker.id, worker.created_at, worker.last_heartbeat),
            "name": worker.name,
            "type": "SELFHOSTED",
            "status": status,
            "lastHeartbeatAt": iso(worker.last_heartbeat),
            "actions": sorted(worker.actions),
            "labels": [
                {"metadata": resource(worker.id, worker.created_at), "key": key, "value": str(value)}
                for key, value in worker.labels.items()
            ],
            "slotConfig": {
                kind: {"available": limit - worker.used.get(kind, 0), "limit": limit}
                for kind, limit in worker.slots.items()
            },
            "runtimeInfo": _runtime(worker),
        }
    )


def _runtime(worker: Worker) -> JsonObject | None:
    info = worker.runtime
    if info is None:
        return None
    return without_nulls(
        {
            "sdkVersion": info.sdk_version or None,
            "language": dispatcher_pb2.SDKS.Name(info.language) if info.HasField("language") else None,
            "languageVersion": info.language_version or None,
            "os": info.os or None,
            "runtimeExtra": info.extra or None,
        }
    )
