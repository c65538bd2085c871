"""Text for a terminal: what `mageflow.terminal` and the console of the commands escape."""

import io
import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from mageflow.cli.console import DataConsole, data, print_rows, span
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


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (
            80,
            [
                "step  run            text",
                "0     0123456789abc  one two three four five six seven eight nine ten eleven",
            ],
        ),
        (46, ["step  run            text", "0     0123456789abc  one two three four five"]),
        (22, ["step       0", "run", "0123456789abc"]),
    ],
)
def test_a_table_folds_text_and_cuts_no_word(columns, shown, monkeypatch):
    """A cell of two lines is as wide as the longer one; what does not fit is a block for each row."""
    monkeypatch.setenv("COLUMNS", str(columns))
    table = Table("step", "run", "text", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_row("0", "0123456789abc\ntrace 7", "one two three four five six seven eight nine ten eleven")
    console = DataConsole()
    with console.capture() as captured:
        print_rows(console, table)

    lines = [line.rstrip() for line in captured.get().splitlines()]
    assert lines[: len(shown)] == shown
    assert "trace 7" in captured.get()
    assert max(map(len, lines)) <= columns


def test_a_row_that_is_too_long_becomes_lines_of_headings_and_values(monkeypatch):
    """From 80 columns up. Each line of a cell is whole."""
    monkeypatch.setenv("COLUMNS", "80")
    table = Table("step", "run", "text")
    table.add_row("0", "a" * 40 + "\ntrace 7", "b" * 40)
    console = DataConsole()
    with console.capture() as captured:
        print_rows(console, table)

    assert captured.get() == f"0  run {'a' * 40}  trace 7\n  text {'b' * 40}\n"
