"""Traces over REST."""

from __future__ import annotations

from aiohttp import web

from mageflow.engine.errors import InvalidRequestError
from mageflow.engine.formats import iso
from mageflow.engine.repository import Repository
from mageflow.engine.rest.request import STABLE_TENANT, page_of
from mageflow.engine.rest.serializers import without_nulls
from mageflow.engine.traces import Span, Traces
from mageflow.engine.values import JsonObject

_SPANS_PER_PAGE = 1000


def routes(repository: Repository, traces: Traces) -> list[web.RouteDef]:
    """Return the routes of this module."""

    async def trace(request: web.Request) -> web.Response:
        run_id = request.query.get("run_external_id")
        if not run_id:
            raise InvalidRequestError("run_external_id is missing")
        spans = traces.of(repository.run(run_id))
        document = page_of(request, [_row(span) for span in spans], size=_SPANS_PER_PAGE)
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
