r"""Text for a terminal: data of a program is shown as text and cannot control the terminal.

A control character, or the escape sequence it begins, can move the cursor, change colours, set the window title or
start a forged line. Here such a character becomes a visible escape, such as ``\x1b``. A backslash of the data itself
stays as it is, so the result is for reading, not for decoding.
"""

import json
import re

__all__ = ["json_text", "printable"]

_UNSAFE = re.compile(
    "["
    "\x00-\x1f"  # C0 controls, with escape, newline and tab
    "\x7f-\x9f"  # delete, and the C1 controls: U+009B begins an escape sequence by itself
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # they reverse the direction of the text after them
    "\u2028\u2029"  # line separators
    "\ud800-\udfff"  # lone surrogates, which no terminal encoding has
    "]"
)
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(text: str, *, keep: str = "") -> str:
    r"""The text with visible escapes for characters that a terminal acts on.

    These are the C0 and C1 control characters, direction controls, line separators and lone surrogates.

    Args:
        text: Any text.
        keep: Characters to leave as they are, such as ``"\n"``.

    Returns:
        The text itself if it has none of these characters.
    """
    return _UNSAFE.sub(lambda found: found[0] if found[0] in keep else _escape(found[0]), text)


def _escape(character: str) -> str:
    code = ord(character)
    return _NAMED.get(character) or (f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}")  # noqa: PLR2004 - one byte


def json_text(value: object) -> str:
    """The value as one line of JSON that is safe on a terminal. It decodes to the same value.

    Args:
        value: What `json.dumps` accepts.

    Raises:
        TypeError: `json.dumps` does not accept it.
    """
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))
