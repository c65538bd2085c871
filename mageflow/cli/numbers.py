"""Numbers as arguments of commands."""

import math
from typing import Any

import click
from typing_extensions import override

__all__ = ["FiniteRange"]


class FiniteRange(click.FloatRange):
    """A number in a range. ``nan`` passes the limits of every `click.FloatRange`, and ``inf`` those of an open one."""

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number.

        Raises:
            click.BadParameter: It is none, is not finite, or is outside of the range.
        """
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number
