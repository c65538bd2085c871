"""The tenant over REST: its details, the engine's version, and the debugger for CEL expressions."""

from __future__ import annotations

from aiohttp import web

from mageflow.engine.clock import Clock
from mageflow.engine.expressions import ExpressionError, evaluate
from mageflow.engine.rest.request import STABLE_TENANT, TENANT, body_of, object_in
from mageflow.engine.rest.serializers import resource
from mageflow.engine.settings import ENGINE_VERSION


def routes(tenant_id: str, clock: Clock) -> list[web.RouteDef]:
    """Return the routes of this module."""
    created_at = clock.now()

    async def details(_request: web.Request) -> web.Response:
        return web.json_response(
            {"metadata": resource(tenant_id, created_at), "name": "local", "slug": "local", "version": "V1"}
        )

    async def version(_request: web.Request) -> web.Response:
        return web.json_response({"version": ENGINE_VERSION})

    return [
        web.get(TENANT, details),
        web.get("/api/v1/version", version),
        web.post(f"{STABLE_TENANT}/cel/debug", _debug_expression),
    ]


async def _debug_expression(request: web.Request) -> web.Response:
    body = await body_of(request)
    variables = {
        "input": object_in(body, "input"),
        "additional_metadata": object_in(body, "additionalMetadata"),
        "payload": object_in(body, "filterPayload"),
        "event_id": "00000000-0000-0000-0000-000000000000",
        "event_key": "event:key",
    }
    try:
        value = evaluate(str(body.get("expression", "")), variables)
    except ExpressionError as error:
        return web.json_response({"status": "ERROR", "error": str(error)})
    if not isinstance(value, bool):
        return web.json_response({"status": "ERROR", "error": f"expression must yield a bool, not {value!r}"})
    return web.json_response({"status": "SUCCESS", "output": value})
