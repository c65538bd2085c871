"""The words of the project: plain English, and no pointer to a document that is not here."""

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

UNPLAIN = re.compile(
    r"\b(whoever|whomever|whatever|nobody|somebody|anybody|hearsay|told|tells?|doors?|seams?|owes?|condemn\w*)\b",
    re.IGNORECASE,
)
"""Words that engineers whose first language is another stumble over, each with a plain one that says more."""

DOCUMENT = re.compile(r"(?<![\w/.-])[\w-][\w./-]*\.md\b")
"""A document that a comment or a string cites."""


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Comments and strings of a Python file with their lines: docstrings, and what users are shown."""
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
        if token.type in kinds:
            yield token.start[0], token.string


def test_prose_is_plain(root: Path):
    """No comment, docstring, message or page has one of the words. Data of tests may."""
    texts = [
        (path, line, text)
        for folder in ("mageflow", "dashboards", "examples")
        for path in sorted((root / folder).rglob("*.py"))
        for line, text in prose(path)
    ]
    texts += [
        (path, line, text)
        for path in sorted((root / "tests").rglob("*.py"))
        for line, text in prose(path)
        if text.startswith(("#", '"""')) and path != Path(__file__)
    ]
    pages = [
        *root.glob("*.md"),
        *root.glob("mageflow/**/*.lua"),
        *root.glob("mageflow/**/*.md"),
        *root.glob("docs/**/*.md"),
    ]
    texts += [
        (path, line, text) for path in sorted(pages) for line, text in enumerate(path.read_text().splitlines(), start=1)
    ]
    found = [
        f"{path.relative_to(root)}:{line}: {', '.join(UNPLAIN.findall(text))}"
        for path, line, text in texts
        if UNPLAIN.search(text)
    ]

    assert len(pages) > 30
    assert found == []


def test_cited_documents_are_in_the_repository(root: Path):
    """A document that Python or Lua code cites can be opened by its reader."""
    texts = [
        (path, line, text)
        for folder in ("mageflow", "tests", "examples", "dashboards")
        for path in (root / folder).rglob("*.py")
        for line, text in prose(path)
        if path != Path(__file__)
    ]
    texts += [(path, 1, path.read_text()) for path in (root / "mageflow").rglob("*.lua")]
    names = {path.name for path in root.rglob("*.md") if not {".git", ".venv"} & set(path.parts)}
    cited = [
        (f"{path.relative_to(root)}:{line}", name) for path, line, text in texts for name in DOCUMENT.findall(text)
    ]

    assert len(cited) > 3
    assert [
        (where, name) for where, name in cited if not ((root / name).exists() if "/" in name else name in names)
    ] == []


@pytest.mark.parametrize("sentence", ["Nobody knows.", "It is told of.", "whatever comes"])
def test_unplain_words_are_found(sentence: str):
    """In any case, anywhere in a sentence."""
    assert UNPLAIN.search(sentence)
