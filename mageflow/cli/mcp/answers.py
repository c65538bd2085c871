"""Answers that fit into the context of a model: JSON of a bounded length, which says what it leaves out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from mageflow.terminal import json_text

__all__ = ["answer"]

_TEXT_LENGTHS: Final = (1000, 200, 40)
"""Texts are cut to the first of these. Where that and shorter lists are not enough, to the next ones."""


@dataclass(slots=True)
class _List:
    """A list in a document."""

    path: str
    items: list[Any]
    length: int
    """Characters of its JSON."""


def answer(document: Mapping[str, Any], most: int, more: Mapping[str, str]) -> str:
    """One line of JSON of at most this length.

    A long text is cut, and says how long it was. Where the document is still too long, the longest lists lose their
    last items, and the key ``left_out`` has their number.

    Args:
        document: What a tool found. Values of JSON only.
        most: Characters, at least 1000.
        more: What to call for the rest of a list, by its key in the document.
    """
    for length in _TEXT_LENGTHS:
        shown = cast("dict[str, Any]", _cut_texts(document, length))
        left_out = {name: dict(each) for name, each in shown.pop("left_out", {}).items()}
        while len(text := json_text(_with(shown, left_out))) > most:
            longest = max(_lists(shown, ""), key=lambda each: each.length, default=None)
            if longest is None:
                break
            kept = len(longest.items) // 2
            noted = left_out.setdefault(longest.path, {"items": 0, "how": _how(longest.path, more)})
            noted["items"] += len(longest.items) - kept
            del longest.items[kept:]
        else:
            return text
    return json_text(
        {"left_out": {"everything": {"how": f"the answer is longer than {most} characters: request less"}}}
    )


def _with(shown: dict[str, Any], left_out: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {**shown, "left_out": left_out} if left_out else shown


def _how(path: str, more: Mapping[str, str]) -> str:
    name = path.partition(".")[0].partition("[")[0]
    return more.get(path) or more.get(name) or "request fewer items, or a narrower part"


def _cut_texts(value: Any, length: int) -> Any:
    if isinstance(value, str):
        rest = len(value) - length
        return value if rest <= 0 else f"{value[:length]}… ({rest} more characters)"
    if isinstance(value, Mapping):
        return {
            str(_cut_texts(str(key), length)): _cut_texts(each, length)
            for key, each in cast("Mapping[Any, Any]", value).items()
        }
    if isinstance(value, list | tuple):
        return [_cut_texts(each, length) for each in cast("list[Any]", value)]
    return value


def _lists(value: Any, path: str) -> Iterator[_List]:
    """Lists that can lose items: the last item of a list goes only where the list has no list inside."""
    if isinstance(value, dict):
        for key, each in cast("dict[str, Any]", value).items():
            yield from _lists(each, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        items = cast("list[Any]", value)
        inner = [found for number, each in enumerate(items) for found in _lists(each, f"{path}[{number}]")]
        if len(items) > 1 or (items and not inner):
            yield _List(path, items, len(json_text(items)))
        yield from inner
