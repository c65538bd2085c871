"""The aiohttp application: authentication, error responses, and the routes with the parts that each uses."""

from __future__ import annotations

import logging
import socket

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from mageflow.engine.core import Engine
from mageflow.engine.errors import RequestError
from mageflow.engine.rest import (
    crons,
    events,
    filters,
    metrics,
    rate_limits,
    runs,
    schedules,
    tasks,
    tenant,
    traces,
    webhooks,
    workers,
    workflows,
)

_log = logging.getLogger("mageflow.engine.rest")
_MAX_BODY_BYTES = 64 * 1024 * 1024


def bind_rest(port: int) -> socket.socket:
    """Return a socket bound to 127.0.0.1. Port 0 takes a free one.

    Raises:
        OSError: the port is in use or not allowed.
    """
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(("127.0.0.1", port))
    except OSError as error:
        bound.close()
        raise OSError(
            f"port {port} of 127.0.0.1 is in use or not allowed for REST: choose another, or 0 for a free one"
        ) from error
    return bound


async def start_rest(bound: socket.socket, engine: Engine, token: str) -> web.AppRunner:
    """Serve the engine on a bound socket. ``cleanup`` of the returned runner stops it."""
    app = web.Application(client_max_size=_MAX_BODY_BYTES, middlewares=[_authenticator(token), _errors])
    app.add_routes(_routes(engine))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.SockSite(runner, bound).start()
    return runner


def _routes(engine: Engine) -> list[web.RouteDef]:
    tenant_id, clock, repository = engine.tenant_id, engine.clock, engine.repository
    return [
        *crons.routes(tenant_id, repository, engine.crons),
        *events.routes(tenant_id, repository),
        *filters.routes(tenant_id, repository, engine.filters),
        *metrics.routes(repository, engine.queue),
        *rate_limits.routes(tenant_id, clock, engine.rate_limits),
        *runs.routes(tenant_id, repository, engine.runs, engine.bulk),
        *schedules.routes(tenant_id, repository, engine.schedules),
        *tasks.routes(tenant_id, repository, engine.durable, engine.replays),
        *tenant.routes(tenant_id, clock),
        *traces.routes(repository, engine.traces),
        *webhooks.routes(tenant_id, engine.webhooks),
        *workers.routes(repository, engine.workers),
        *workflows.routes(tenant_id, repository, engine.pauses, engine.registry),
    ]


def _error_response(status: int, description: str) -> web.Response:
    """Return an error in the form of the API."""
    return web.json_response({"errors": [{"description": description}]}, status=status)


def _authenticator(token: str) -> Middleware:
    @web.middleware
    async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        is_public = request.match_info.route.name == webhooks.RECEIVE
        if not is_public and (scheme.lower() != "bearer" or given != token):
            return _error_response(403, "wrong or missing token for this engine")
        return await handler(request)

    return authenticate


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except RequestError as error:
        return _error_response(error.http_status, str(error))
    except web.HTTPException as error:
        return _error_response(error.status, f"{error.reason}: {request.method} {request.path}")
    except Exception:  # noqa: BLE001 - the engine must survive a bad request
        _log.exception("%s %s failed", request.method, request.path)
        return _error_response(500, "the engine failed, see its log")
