"""Traces over REST."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from mageflow.engine.documents import iso
from mageflow.engine.errors import InvalidRequestError
from mageflow.engine.model import JsonObject
from mageflow.engine.rest.request import STABLE_TENANT, integer, page
from mageflow.engine.rest.shapes import without_nulls
from mageflow.engine.traces import Span

if TYPE_CHECKING:
    from mageflow.engine.core import Engine

_PAGE_SIZE = 1000


def routes(engine: Engine) -> list[web.RouteDef]:
    """Return the routes of this module."""

    async def trace(request: web.Request) -> web.Response:
        run_id = request.query.get("run_external_id")
        if not run_id:
            raise InvalidRequestError("run_external_id is missing")
        spans = engine.traces.of(engine.store.run(run_id))
        document = page(
            [_row(span) for span in spans],
            offset=integer(request, "offset", 0),
            limit=integer(request, "limit", _PAGE_SIZE),
        )
        document["retryCounts"] = sorted({span.retry_count for span in spans})
        return web.json_response(document)

    return [web.get(f"{STABLE_TENANT}/traces", trace)]


def _row(span: Span) -> JsonObject:
    return without_nulls(
        {
            "traceId": span.trace_id,
            "spanId": span.span_id,
            "parentSpanId": span.parent_span_id,
            "spanName": span.name,
            "spanKind": span.kind,
            "serviceName": span.service,
            "statusCode": span.status,
            "statusMessage": span.status_message,
            "durationNs": span.duration_ns,
            "createdAt": iso(span.started_at),
            "resourceAttributes": span.resource,
            "spanAttributes": span.attributes,
            "scopeName": span.scope_name,
            "scopeVersion": span.scope_version,
            "retryCount": span.retry_count,
        }
    )
