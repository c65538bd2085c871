"""JSON text from clients into objects."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, cast

from mageflow.engine.errors import InvalidRequestError
from mageflow.engine.model import JsonObject


def parse_object(text: str | bytes, what: str) -> JsonObject:
    """Return the JSON object in ``text``; empty text and ``null`` are an empty object.

    Raises:
        InvalidRequestError: not JSON, or not an object; ``what`` names the field.
    """
    if not text:
        return {}
    try:
        value: Any = json.loads(text)
    except ValueError as error:
        raise InvalidRequestError(f"{what} is not valid JSON: {error}") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequestError(f"{what} must be a JSON object, not {type(value).__name__}")
    return cast("JsonObject", value)


def iso(moment: datetime) -> str:
    """Return ISO-8601 with zone and milliseconds at least."""
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
