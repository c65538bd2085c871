"""The pictures of the commands in the documentation show what the commands print today."""

import html
import re
from pathlib import Path

import pytest

from mageflow.cli.inspect import bars

PICTURES = Path(__file__).parent.parent.parent / "docs" / "pictures"


def words_in(name: str) -> str:
    svg = (PICTURES / f"{name}.svg").read_text("utf-8")
    return html.unescape(" ".join(re.findall(r"<text[^>]*>([^<]*)</text>", svg))).replace("\xa0", " ")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("inspect", ["chain order", "waits for", "the lock label-printer", "time line", "budget", "history", "became"]),
        ("dev", ["Engine 127.0.0.1:", "Ctrl-C stops everything.", "price-order", "task.finished"]),
    ],
)
def test_a_picture_has_the_words_of_its_command(name: str, expected: list[str]) -> None:
    """After a change of what a command prints: ``poe command-pictures``."""
    shown = re.sub(r" +", " ", words_in(name))
    assert [each for each in expected if each not in shown] == []


def test_the_picture_of_inspect_has_its_marks() -> None:
    """The legend names parts that the command knows."""
    shown = words_in("inspect")
    assert "stagger" in shown
    assert {"stagger", "body", "queue"} <= set(bars.MARKS)
