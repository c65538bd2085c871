"""The aiohttp application: authentication, errors, routes."""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from mageflow.engine.errors import RequestError
from mageflow.engine.rest import events, runs, tenant, traces, triggers, workers, workflows

if TYPE_CHECKING:
    from mageflow.engine.core import Engine

_log = logging.getLogger("mageflow.engine.rest")
_MAX_BODY_BYTES = 64 * 1024 * 1024
_ROUTES = (events.routes, runs.routes, tenant.routes, traces.routes, triggers.routes, workers.routes, workflows.routes)


def bind_rest(port: int) -> socket.socket:
    """Return a socket bound to 127.0.0.1; port 0 picks a free one.

    Raises:
        OSError: the port is taken, or needs privileges.
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
    """Serve the engine on a bound socket; the runner's ``cleanup`` ends it."""
    app = web.Application(client_max_size=_MAX_BODY_BYTES, middlewares=[_authenticator(token), _errors])
    for routes in _ROUTES:
        app.add_routes(routes(engine))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.SockSite(runner, bound).start()
    return runner


def error_response(status: int, description: str) -> web.Response:
    """Return an error in the API's form."""
    return web.json_response({"errors": [{"description": description}]}, status=status)


def _authenticator(token: str) -> Middleware:
    @web.middleware
    async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or given != token:
            return error_response(403, "wrong or missing token for this engine")
        return await handler(request)

    return authenticate


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except RequestError as error:
        return error_response(error.http_status, str(error))
    except web.HTTPException as error:
        return error_response(error.status, f"{error.reason}: {request.method} {request.path}")
    except Exception:  # noqa: BLE001 - the engine must outlive a bad request
        _log.exception("%s %s failed", request.method, request.path)
        return error_response(500, "the engine failed, see its log")
