"""The console of all commands: it prints data as text, never as markup or control characters."""

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from mageflow.terminal import printable

__all__ = ["DataConsole", "data", "span"]


class DataConsole(Console):
    """A `rich.console.Console` that never reads a string as markup and never passes on a control character.

    Strings are not highlighted and emoji codes are not replaced. Use `rich.text.Text` for style and `data` for values.

    Args:
        stderr: Print to standard error.
        width: Columns if the output is no terminal. None is the default of rich, 80.
    """

    def __init__(self, *, stderr: bool = False, width: int | None = None) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)
        if width is not None and not self.is_terminal:
            self.width = width

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as rich does. A control character that is still in the text becomes a visible escape."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(printable(segment.text, keep="\n"), segment.style)


def data(value: object, style: str = "") -> Text:
    """A value from Redis, Hatchet or a log as one line of text. Control characters become visible escapes."""
    return Text(printable(str(value)), style)


def span(seconds: float) -> str:
    """A length of time, such as ``4.2 s``, ``3 min 5 s`` or ``2 h 7 min``. A negative one is 0."""
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{max(seconds, 0.0):.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
