"""Reading requests: JSON bodies, repeated query keys, ISO times."""

from __future__ import annotations

from datetime import UTC, datetime

from aiohttp import web

from mageflow.engine.documents import parse_object
from mageflow.engine.errors import InvalidRequestError
from mageflow.engine.model import JsonObject

TENANT = "/api/v1/tenants/{tenant}"
STABLE_TENANT = "/api/v1/stable/tenants/{tenant}"
STABLE = "/api/v1/stable"


async def body_of(request: web.Request) -> JsonObject:
    """Return the JSON body; an empty body is an empty object.

    Raises:
        InvalidRequestError: not a JSON object.
    """
    return parse_object(await request.read(), "request body")


def many(request: web.Request, name: str) -> list[str]:
    """Return all values of a repeated query key."""
    return list(request.query.getall(name, []))


def integer(request: web.Request, name: str, default: int) -> int:
    """Return an integer from the query.

    Raises:
        InvalidRequestError: not an integer.
    """
    text = request.query.get(name)
    if text is None:
        return default
    try:
        return int(text)
    except ValueError as error:
        raise InvalidRequestError(f"query parameter {name!r} must be an integer, not {text!r}") from error


def moment(text: object, name: str) -> datetime | None:
    """Return an ISO-8601 time, in UTC when it has no zone; None for nothing.

    Raises:
        InvalidRequestError: not a time.
    """
    if text is None or text == "":
        return None
    try:
        parsed = datetime.fromisoformat(str(text).replace("Z", "+00:00").replace(" ", "+"))
    except ValueError as error:
        raise InvalidRequestError(f"{name!r} must be an ISO-8601 time, not {text!r}") from error
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def metadata_pairs(pairs: list[str]) -> list[tuple[str, str]]:
    """Return ``key:value`` filters split at the first colon."""
    return [(key, value) for key, _, value in (pair.partition(":") for pair in pairs)]


def page(items: list[JsonObject], *, offset: int, limit: int) -> JsonObject:
    """Return one page of rows in the API's pagination form."""
    size = max(1, limit)
    total = len(items)
    pages = max(1, -(-total // size))
    current = offset // size + 1
    pagination: JsonObject = {"current_page": current, "num_pages": pages}
    pagination["next_page"] = min(current + 1, pages)
    return {"rows": items[offset : offset + size], "pagination": pagination}
