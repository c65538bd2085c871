"""Reading requests: path prefixes, JSON bodies, query parameters, pages."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import unquote

from aiohttp import web

from mageflow.engine.definitions import Workflow
from mageflow.engine.errors import InvalidRequestError
from mageflow.engine.parsing import parse_object
from mageflow.engine.repository import Repository
from mageflow.engine.values import JsonObject

TENANT = "/api/v1/tenants/{tenant}"
STABLE_TENANT = "/api/v1/stable/tenants/{tenant}"
STABLE = "/api/v1/stable"

_PAGE_SIZE = 50


async def body_of(request: web.Request) -> JsonObject:
    """Return the JSON body. An empty body is an empty object.

    Raises:
        InvalidRequestError: the body is not a JSON object.
    """
    return parse_object(await request.read(), "request body")


def object_in(body: JsonObject, name: str) -> JsonObject:
    """Return a field of a body that holds an object. An absent field and null are an empty object.

    Raises:
        InvalidRequestError: the field is another JSON value.
    """
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequestError(f"{name} must be a JSON object, not {type(value).__name__}")
    return value


def workflow_in(repository: Repository, request: web.Request) -> Workflow:
    """Return the workflow whose name is in the path.

    Raises:
        InvalidRequestError: no worker has registered it.
    """
    name = unquote(request.match_info["name"])
    workflow = repository.workflow_named(name)
    if workflow is None:
        raise InvalidRequestError(f"unknown workflow {name!r}: start a worker that registers it first")
    return workflow


def many(request: web.Request, name: str) -> list[str]:
    """Return all values of a repeated query parameter."""
    return list(request.query.getall(name, []))


def time_from(text: object, name: str) -> datetime | None:
    """Return an ISO 8601 time, in UTC if it names no zone; None for None and empty text.

    Raises:
        InvalidRequestError: the text is not a time; ``name`` is the field or parameter.
    """
    if text is None or text == "":
        return None
    try:
        parsed = datetime.fromisoformat(str(text).replace("Z", "+00:00").replace(" ", "+"))
    except ValueError as error:
        raise InvalidRequestError(f"{name!r} must be an ISO-8601 time, not {text!r}") from error
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def metadata_pairs(pairs: list[str]) -> list[tuple[str, str]]:
    """Return filters of the form ``key:value``, split at the first colon."""
    return [(key, value) for key, _, value in (pair.partition(":") for pair in pairs)]


def plain_metadata_pairs(pairs: list[str]) -> list[tuple[str, str]]:
    """Return filters of the form ``key:value`` of the older routes, whose values have no colon.

    Raises:
        InvalidRequestError: a filter has no colon, or more than one.
    """
    if any(pair.count(":") != 1 for pair in pairs):
        raise InvalidRequestError("Additional metadata filters must be in the format key:value.")
    return metadata_pairs(pairs)


def window_of(request: web.Request, rows: list[JsonObject]) -> list[JsonObject]:
    """Return the rows that the parameters ``offset`` and ``limit`` select, without information about pages.

    Raises:
        InvalidRequestError: a parameter is not an integer, or too small.
    """
    offset = _integer(request, "offset", 0, least=0)
    return rows[offset : offset + _integer(request, "limit", max(1, len(rows)), least=1)]


def page_of(request: web.Request, rows: list[JsonObject], *, size: int = _PAGE_SIZE) -> JsonObject:
    """Return the page of rows that the parameters ``offset`` and ``limit`` select, in the form of the API.

    Args:
        request: the request.
        rows: all rows.
        size: rows per page without ``limit``.

    Raises:
        InvalidRequestError: a parameter is not an integer, or too small.
    """
    offset = _integer(request, "offset", 0, least=0)
    size = _integer(request, "limit", size, least=1)
    current = offset // size + 1
    # Hatchet names a next page after the last one too.
    pagination: JsonObject = {"current_page": current, "num_pages": -(-len(rows) // size), "next_page": current + 1}
    return {"rows": rows[offset : offset + size], "pagination": pagination}


def _integer(request: web.Request, name: str, default: int, *, least: int) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    try:
        number = int(text)
    except ValueError as error:
        raise InvalidRequestError(f"query parameter {name!r} must be an integer, not {text!r}") from error
    if number < least:
        raise InvalidRequestError(f"query parameter {name!r} must be at least {least}, not {number}")
    return number
