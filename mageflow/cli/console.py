"""The console of all commands: what is printed is text, whatever the data holds."""

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from mageflow.terminal import printable

__all__ = ["DataConsole", "data"]


class DataConsole(Console):
    """A `rich.console.Console` that never interprets a string as markup and never passes on a control character.

    Strings are not highlighted and emoji codes are not replaced. Use `rich.text.Text` for style and `data` for values.

    Args:
        stderr: Print to standard error.
        width: Columns where the output is no terminal; None for rich's default of 80.
    """

    def __init__(self, *, stderr: bool = False, width: int | None = None) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)
        if width is not None and not self.is_terminal:
            self.width = width

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as rich does. Control characters that are left in the text become visible escapes."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(printable(segment.text, keep="\n"), segment.style)


def data(value: object, style: str = "") -> Text:
    """A value of the user's program as one line of text."""
    return Text(printable(str(value)), style)
