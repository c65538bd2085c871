"""Checks and conversions of values in requests: JSON objects, ids and times."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

from mageflow.engine.contracts import Timestamp
from mageflow.engine.errors import InvalidRequestError
from mageflow.engine.values import JsonObject

# NUL is written with an odd number of backslashes. After an even number, "u0000" is plain text.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def parse_object(text: str | bytes, what: str) -> JsonObject:
    """Return the JSON object in ``text``. Empty text and ``null`` are an empty object.

    Args:
        text: JSON.
        what: name of the field, for the error.

    Raises:
        InvalidRequestError: the text is not JSON (``NaN`` and ``Infinity`` are none), not an object, or holds the
            character NUL, which Hatchet's database cannot store.
    """
    if not text:
        return {}
    check_no_nul(text, what)
    try:
        value: Any = json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:
        raise InvalidRequestError(f"{what} is not valid JSON: {error}") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequestError(f"{what} must be a JSON object, not {type(value).__name__}")
    return cast("JsonObject", value)


def _refuse_constant(word: str) -> Any:
    """Refuse the words that Python's own JSON writes for some numbers, and no other reader of JSON takes."""
    raise ValueError(f"{word} is no JSON number")


def check_no_nul(text: str | bytes, what: str) -> None:
    """Raise InvalidRequestError when JSON text holds the character NUL. JSON can only write it as an escape."""
    raw = text if isinstance(text, bytes) else text.encode()
    if b"\\u0000" in raw and _NUL.search(raw):
        raise InvalidRequestError(f"{what} holds the character NUL (\\u0000), which Hatchet cannot store")


def check_id(text: str, what: str) -> None:
    """Raise InvalidRequestError when an id is not a UUID; ``what`` names the field."""
    try:
        UUID(text)
    except ValueError as error:
        raise InvalidRequestError(f"{what} must be a UUID, not {text!r}") from error


def check_ids(ids: list[str], what: str) -> None:
    """Raise InvalidRequestError when one of the ids is not a UUID; ``what`` names one of them."""
    for each in ids:
        check_id(each, what)


def check_priority(priority: int | None) -> None:
    """Raise InvalidRequestError when a priority is set and not 1, 2 or 3."""
    if priority is not None and priority not in (1, 2, 3):
        raise InvalidRequestError(f"priority must be 1, 2 or 3, not {priority}")


def utc_time(stamp: Timestamp, what: str) -> datetime:
    """Return a protobuf timestamp as a time in UTC.

    Raises:
        InvalidRequestError: it is malformed or outside the years 1 to 9999; ``what`` names the field.
    """
    try:
        return stamp.ToDatetime(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidRequestError(f"{what} is not a valid timestamp: {error}") from error
