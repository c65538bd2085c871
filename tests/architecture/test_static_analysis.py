"""The linter, the formatter and the type checker report nothing."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


def tool(root: Path, name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a tool of this environment at the top of the checkout."""
    command = [Path(sys.executable).with_name(name), *arguments]
    return subprocess.run(
        command, cwd=root, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def test_ruff_has_nothing_to_say(root: Path):
    """Every rule but those that pyproject.toml excludes with a reason."""
    run = tool(root, "ruff", "check", "--no-cache", "--quiet", ".")

    assert run.returncode == 0, run.stdout + run.stderr


def test_code_is_formatted(root: Path):
    """``ruff format`` would change nothing."""
    run = tool(root, "ruff", "format", "--check", "--no-cache", ".")

    assert run.returncode == 0, run.stdout + run.stderr


SUPPRESSION = re.compile(
    r"# (?:noqa: [A-Z]+\d+(?:, ?[A-Z]+\d+)*|(?:type|pyright): ignore(?:\[[\w, -]+\])?)(?P<why>[^\n]*)"
)
"""A comment that silences a tool, and what follows it."""


def test_what_silences_a_tool_says_why(root: Path):
    """A rule that does not fit a whole file is excluded in pyproject.toml, with a reason there."""
    found = [
        (f"{path.relative_to(root)}:{number}", comment["why"])
        for folder in ("mageflow", "dashboards", "docs", "examples")
        for path in sorted((root / folder).rglob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        for comment in SUPPRESSION.finditer(line)
    ]

    assert len(found) > 50
    assert [where for where, why in found if not re.search(r"\w{2}", why)] == []


@pytest.mark.slow
def test_pyright_is_strict_and_silent(root: Path):
    """The whole package passes pyright in strict mode."""
    # Memory for time: Node collects garbage less often.
    run = tool(root, "pyright", "--pythonpath", sys.executable, NODE_OPTIONS="--max-semi-space-size=128")

    assert run.returncode == 0, run.stdout + run.stderr
