"""Text for a terminal: what `mageflow.terminal` and the console of the commands escape."""

import io
import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from mageflow.cli.console import DataConsole, data, span
from mageflow.terminal import json_text, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", "\\x1b[2J"),
        ("\x9b31m\x7f", "\\x9b31m\\x7f"),
        ("a\tb\r\nc", "a\\tb\\r\\nc"),
        ("\u202e\u2066\u200f", "\\u202e\\u2066\\u200f"),
        ("\u2028", "\\u2028"),
        ("\udcff", "\\udcff"),
        ("ordinary text, \u00e9\u00df\u4e2d\U0001f600 \\x1b", "ordinary text, \u00e9\u00df\u4e2d\U0001f600 \\x1b"),
    ],
)
def test_control_characters_are_visible(text, shown):
    """A control character becomes its escape; all other text stays as it is."""
    assert printable(text) == shown


@given(st.text(st.characters(exclude_categories=())))
def test_no_control_character_is_left(text):
    """For every text: the result can be encoded and has no control character, and a second call changes nothing."""
    shown = printable(text)

    shown.encode()
    assert {unicodedata.category(character) for character in shown} & {"Cc", "Cs", "Zl", "Zp"} == set()
    assert printable(shown) == shown


@given(st.recursive(st.text(st.characters(exclude_categories=())), lambda inner: st.dictionaries(st.text(), inner)))
def test_json_is_safe_and_the_same_value(value):
    """The line decodes to the value, can be encoded, and has no control character."""
    text = json_text(value)

    assert json.loads(text) == value
    assert printable(text) == text
    text.encode()


def test_kept_characters_stay():
    """An error message of several lines keeps its lines."""
    assert printable("one\ntwo\x1b", keep="\n") == "one\ntwo\\x1b"


def test_console_escapes_what_a_command_forgot():
    """Also text that did not pass through `data` reaches the terminal without control characters or markup."""
    console = DataConsole(width=60)
    console.file = io.StringIO()
    table = Table("name")
    table.add_row("[red]x[/nope]\x1b[2J")
    table.add_row(Text("\x9b31m"))

    console.print(table)
    console.print("[bold]x[/] :smile: \x1b]0;title\x07")
    console.print(data("a\nb"))

    printed = console.file.getvalue()
    assert "\x1b" not in printed
    assert "\x9b" not in printed
    assert "[red]x[/nope]\\x1" in printed  # the cell is cropped to the width of its text before
    assert "\\x9b31m" in printed
    assert "[bold]x[/] :smile: \\x1b]0;title" in printed
    assert printed.splitlines()[-1] == "a\\nb"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(-1.0, "0.0 s"), (4.24, "4.2 s"), (185.0, "3 min 5 s"), (7620.0, "2 h 7 min")]
)
def test_a_length_of_time_has_two_units_at_most(seconds, shown):
    """Seconds, minutes and seconds, or hours and minutes."""
    assert span(seconds) == shown
