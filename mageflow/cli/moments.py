"""Times and durations as arguments of commands."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click
from typing_extensions import override

__all__ = ["Duration", "Moment"]

_PART: Final = r"(\d{1,12}(?:\.\d{1,9})?)"
_DURATION: Final = re.compile(rf"(?=.)(?:{_PART}d)?(?:{_PART}h)?(?:{_PART}m)?(?:{_PART}s)?", re.ASCII)
_NUMBER: Final = re.compile(_PART, re.ASCII)
_LONGEST: Final = timedelta(days=3650)


class Moment(click.ParamType):  # pyright: ignore[reportMissingTypeArgument] - generic in new releases of click only
    """A time in the form of ISO 8601, in the future. Without a time zone it is the time of this machine."""

    name = "time"

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """The time, with its zone.

        Raises:
            click.BadParameter: It is no time, or has passed.
        """
        try:
            moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
            moment = moment.astimezone()
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no time such as 2030-01-31T06:00 or 2030-01-31T06:00Z.", param, ctx)
        if moment <= datetime.now(UTC):
            self.fail(f"{moment.isoformat()} has passed.", param, ctx)
        return moment


class Duration(click.ParamType):  # pyright: ignore[reportMissingTypeArgument] - generic in new releases of click only
    """A duration such as ``90s``, ``10m``, ``2h30m``, ``1.5h`` or ``1d12h``.

    Args:
        least: The shortest; None for any that is longer than zero.
        most: The longest; ten years by default.
        bare: What a number without a unit counts, for options that have been numbers. None refuses one.
    """

    name = "duration"

    def __init__(
        self, least: timedelta | None = None, most: timedelta = _LONGEST, *, bare: timedelta | None = None
    ) -> None:
        self._least = least
        self._most = most
        self._bare = bare

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """The duration.

        Raises:
            click.BadParameter: It is none, is zero, or is outside of the limits.
        """
        if isinstance(value, timedelta):
            return value
        duration = self._parsed(str(value))
        if duration is None or duration <= timedelta():
            self.fail(f"{value!r} is no duration such as 90s, 10m, 2h30m or 1d12h.", param, ctx)
        if self._least is not None and duration < self._least:
            self.fail(f"{value!r} is less than {_written(self._least)}.", param, ctx)
        if duration > self._most:
            self.fail(f"{value!r} is more than {_written(self._most)}.", param, ctx)
        return duration

    def _parsed(self, text: str) -> timedelta | None:
        try:
            if self._bare is not None and _NUMBER.fullmatch(text):
                return float(text) * self._bare
            found = _DURATION.fullmatch(text)
            if found is None:
                return None
            days, hours, minutes, seconds = (float(each or 0) for each in found.groups())
            return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        except (ValueError, OverflowError):
            return timedelta.max


def _written(duration: timedelta) -> str:
    seconds = duration.total_seconds()
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return f"{seconds:g}s"
