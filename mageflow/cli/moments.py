"""Times and durations as arguments of commands."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click
from typing_extensions import override

__all__ = ["Duration", "Moment"]

_DURATION: Final = re.compile(r"(?=.)(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", re.ASCII)
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
    """A duration such as ``90s``, ``10m``, ``2h`` or ``1d12h``, up to ten years."""

    name = "duration"

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """The duration.

        Raises:
            click.BadParameter: It is none, is zero, or is longer than ten years.
        """
        if isinstance(value, timedelta):
            return value
        found = _DURATION.fullmatch(str(value))
        try:
            days, hours, minutes, seconds = (int(each or 0) for each in found.groups()) if found else (0, 0, 0, 0)
            duration = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        except (ValueError, OverflowError):
            duration = timedelta()
        if not timedelta() < duration <= _LONGEST:
            self.fail(f"{value!r} is no duration such as 90s, 10m, 2h or 1d12h, up to ten years.", param, ctx)
        return duration
