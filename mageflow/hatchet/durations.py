"""Hatchet's durations, in Go's notation, as the engine parses them (``time.ParseDuration``)."""

import math
import re
from datetime import timedelta

from hatchet_sdk.utils.timedelta_to_expression import timedelta_to_expr

__all__ = ["milliseconds", "seconds"]

_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_UNIT_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(duration: timedelta | str) -> float:
    """The seconds of a duration as the engine gets it. The SDK drops a timedelta's fraction of a second.

    Raises:
        ValueError: The text is not a Go duration.
    """
    text = timedelta_to_expr(duration).strip()
    parts = _PART.findall(text.removeprefix("-"))
    if not parts or "".join(number + unit for number, unit in parts) != text.removeprefix("-"):
        raise ValueError(f"not a duration: {text!r}; write it as in '1h30m', '15s' or '500ms'")
    total = sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)
    return -total if text.startswith("-") else total


def milliseconds(amount_seconds: float) -> str:
    """A duration in whole milliseconds, rounded up."""
    return f"{math.ceil(amount_seconds * 1000)}ms"
