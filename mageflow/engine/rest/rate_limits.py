"""Rate limits over REST."""

from __future__ import annotations

from aiohttp import web

from mageflow.engine.clock import Clock
from mageflow.engine.formats import iso
from mageflow.engine.rate_limits import Bucket, RateLimits
from mageflow.engine.rest.request import TENANT, page_of
from mageflow.engine.rest.serializers import without_nulls
from mageflow.engine.values import JsonObject


def routes(tenant_id: str, clock: Clock, rate_limits: RateLimits) -> list[web.RouteDef]:
    """Return the routes of this module."""

    async def list_rate_limits(request: web.Request) -> web.Response:
        search, now = request.query.get("search", ""), clock.now()
        buckets = [each for each in rate_limits.buckets.values() if search in each.key]
        for each in buckets:
            each.refill(now)
        return web.json_response(page_of(request, [_row(tenant_id, each) for each in buckets]))

    return [web.get(f"{TENANT}/rate-limits", list_rate_limits)]


def _row(tenant_id: str, bucket: Bucket) -> JsonObject:
    return without_nulls(
        {
            "key": bucket.key,
            "tenantId": tenant_id,
            "limitValue": bucket.limit,
            "value": bucket.value,
            "window": bucket.window_name,
            "lastRefill": iso(bucket.refilled_at),
            "pausedUntil": iso(bucket.paused_until) if bucket.paused_until else None,
        }
    )
