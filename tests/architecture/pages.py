"""The pages as the tests read them: README.md and docs/*.md, their blocks, and what is generated from the code."""

import ast
import re
import textwrap
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from mageflow.config import Settings

SETTINGS_PAGE = "docs/settings.md"
SETTINGS_START = "<!-- settings -->"
SETTINGS_END = "<!-- /settings -->"


@dataclass(frozen=True)
class Block:
    """One fenced code block."""

    language: str
    text: str
    line: int

    @property
    def file_name(self) -> str:
        """The file a block is to be saved as: its first line says so."""
        found = re.match(r"# ([\w.]+\.py)\n", self.text)
        return found.group(1) if found else ""


def pages(root: Path) -> dict[str, str]:
    """The front page and every page directly in ``docs/`` and in ``docs/how-to/``, by name, in order."""
    found = [root / "README.md", *sorted((root / "docs").glob("*.md")), *sorted((root / "docs/how-to").glob("*.md"))]
    return {str(page.relative_to(root)): page.read_text() for page in found}


def all_pages(root: Path) -> dict[str, str]:
    """Every page of the repository that a reader may copy from, by name, in order. The changelog shows no code."""
    found = [*root.glob("*.md"), *(root / "dashboards").glob("*.md"), *(root / "examples").glob("*.md")]
    found += (root / "docs").rglob("*.md")
    return {str(page.relative_to(root)): page.read_text() for page in sorted(found) if page.name != "CHANGELOG.md"}


def blocks(text: str) -> list[Block]:
    """Every fenced code block of a page, in order. One in a list is there without its indentation."""
    return [
        Block(found.group(2), textwrap.dedent(found.group(3)), text[: found.start()].count("\n") + 1)
        for found in re.finditer(r"^( *)```(\w*)\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL)
    ]


def settings_table(root: Path) -> str:
    """The table of settings: every field with its default and its own words."""
    tree = ast.parse((root / "mageflow" / "config.py").read_text())
    body = next(node for node in tree.body if isinstance(node, ast.ClassDef)).body
    said = {
        field.target.id: ast.literal_eval(words.value)
        for field, words in pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(words, ast.Expr)
        and isinstance(words.value, ast.Constant)
    }
    rows = ["| Variable | Default | |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = field.default
        shown = ",".join(default) if isinstance(default, tuple) else "" if default is None else str(default)
        words = re.sub(r"``(.+?)``", r"`\1`", " ".join(said[name].split()))
        rows.append(f"| `MAGEFLOW_{name.upper()}` | {f'`{shown}`' if shown else 'unset'} | {words} |")
    return "\n".join(rows)


def with_settings(text: str, root: Path) -> str:
    """The page with its table of settings made anew."""
    start, end = text.index(SETTINGS_START) + len(SETTINGS_START), text.index(SETTINGS_END)
    return f"{text[:start]}\n{settings_table(root)}\n{text[end:]}"


if __name__ == "__main__":
    top = Path(__file__).parents[2]
    page = top / SETTINGS_PAGE
    page.write_text(with_settings(page.read_text(), top))
