"""Go duration strings, the format of every timeout and sleep in the protocol.

The SDK writes whole hours, minutes or seconds: ``"90s"``; less than a second becomes ``"0h"``, a time in the past a
negative number. Users may pass text such as ``"1h30m"`` or ``"500ms"``. Hatchet accepts less than Go: no sign, no
``0`` without a unit, no unit below a millisecond or above an hour.
"""

from __future__ import annotations

import re

from mageflow.engine.errors import InvalidRequestError

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3}
_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ms|h|m|s)")
_WHOLE = re.compile(rf"(?:{_PART.pattern})+")


def parse_duration(text: str, *, default: float | None = None) -> float:
    """Return the seconds of a Go duration, or ``default`` for an empty text.

    Raises:
        InvalidRequestError: the text is not a duration, or it is empty and there is no default.
    """
    if not text and default is not None:
        return default
    if not _WHOLE.fullmatch(text):
        raise InvalidRequestError(
            f"invalid duration {text!r}: one or more numbers with a unit, which is ms, s, m or h; for example '90s', "
            "'5m', '1h30m' or '500ms'"
        )
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
