"""The end of a message about an unknown name: the nearest known one."""

import difflib
from collections.abc import Iterable

__all__ = ["hint"]

_LISTED = 12


def hint(name: str, known: Iterable[str], also: Iterable[str] = ()) -> str:
    """``; did you mean 'x'?``, or the known names when none is near and they are few.

    Args:
        name: The unknown name.
        known: Names that are right here.
        also: Names that may be meant and are not listed.

    >>> hint("priorty", ["priority", "key"])
    "; did you mean 'priority'?"
    >>> hint("colour", ["priority", "key"])
    '; known are priority, key'
    """
    names = list(known)
    near = difflib.get_close_matches(name, [*names, *also], 1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known are {', '.join(names)}" if 0 < len(names) <= _LISTED else ""
