"""JSON text from clients into objects."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, cast

from google.protobuf.timestamp_pb2 import Timestamp

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


def moment_of(stamp: Timestamp, what: str) -> datetime:
    """Return a protobuf timestamp as a UTC time.

    Raises:
        InvalidRequestError: outside the years 1 to 9999, or malformed; ``what`` names the field.
    """
    try:
        return stamp.ToDatetime(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidRequestError(f"{what} is not a valid timestamp: {error}") from error


def iso(moment: datetime) -> str:
    """Return ISO-8601 with zone and milliseconds at least."""
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
