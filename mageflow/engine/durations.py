"""Go duration strings, the wire format of every timeout and sleep.

The SDK writes whole hours, minutes or seconds (``"90s"``, a sub-second duration becomes ``"0h"``, a moment in the
past a negative number); users may pass any Go duration such as ``"1h30m"`` or ``"500ms"``.
"""

from __future__ import annotations

import re

from mageflow.engine.errors import InvalidRequestError

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ms|us|µs|μs|ns|h|m|s)")
_WHOLE = re.compile(rf"[+-]?(?:{_PART.pattern})+")


def parse_duration(text: str, *, default: float | None = None) -> float:
    """Return seconds for a Go duration; ``default`` for an empty text.

    Raises:
        InvalidRequestError: the text is not a duration, or empty without a default.
    """
    stripped = text.strip()
    if not stripped and default is not None:
        return default
    if stripped in {"0", "+0", "-0"}:
        return 0.0
    if not _WHOLE.fullmatch(stripped):
        raise InvalidRequestError(f"invalid duration {text!r}: use for example '90s', '5m', '1h30m' or '500ms'")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(stripped))
    return -seconds if stripped.startswith("-") else seconds
