"""JSON text from clients into objects."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from mageflow.engine.errors import InvalidRequestError
from mageflow.engine.model import JsonObject

# An odd number of backslashes before it: an even number is that many halves of backslashes, followed by "u0000".
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def parse_object(text: str | bytes, what: str) -> JsonObject:
    """Return the JSON object in ``text``; empty text and ``null`` are an empty object.

    Raises:
        InvalidRequestError: not JSON, not an object, or with a NUL character, which Hatchet's database cannot hold;
            ``what`` names the field.
    """
    if not text:
        return {}
    check_no_nul(text, what)
    try:
        value: Any = json.loads(text)
    except ValueError as error:
        raise InvalidRequestError(f"{what} is not valid JSON: {error}") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequestError(f"{what} must be a JSON object, not {type(value).__name__}")
    return cast("JsonObject", value)


def check_no_nul(text: str | bytes, what: str) -> None:
    """Raise InvalidRequestError when JSON text holds the character NUL, which JSON can only write as an escape."""
    raw = text if isinstance(text, bytes) else text.encode()
    if b"\\u0000" in raw and _NUL.search(raw):
        raise InvalidRequestError(f"{what} holds the character NUL (\\u0000), which Hatchet cannot store")


def check_id(text: str, what: str) -> None:
    """Raise InvalidRequestError when an id is no UUID; ``what`` names the field."""
    try:
        UUID(text)
    except ValueError as error:
        raise InvalidRequestError(f"{what} must be a UUID, not {text!r}") from error


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
