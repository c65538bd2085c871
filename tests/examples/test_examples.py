"""Every example does what it says at its top, as a program of its own against a real worker."""

import ast
import doctest
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))


def promised(path: Path) -> str:
    """What an example says it prints."""
    words = ast.get_docstring(ast.parse(path.read_text())) or ""
    _, found, block = words.partition("Prints::\n\n")
    assert found, f"{path.name} does not say what it prints: its docstring needs a block 'Prints::'"
    return textwrap.dedent(block).strip() + "\n"


def test_every_example_is_in_the_list(root):
    """The list of examples names each file, and no other."""
    listed = re.findall(r"\]\(([\w.]+\.py)\)", (root / "examples" / "README.md").read_text())

    assert sorted(listed) == [path.name for path in EXAMPLES]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_prints_what_it_promises(path, mageflow_worker, mageflow_redis, tmp_path):
    """The worker of the example starts, and its program prints what its docstring says."""
    environment = {"MAGEFLOW_REDIS_URL": mageflow_redis.url, "MAGEFLOW_METRICS_PORT": "0"}
    mageflow_worker(path, "worker", environment=environment)

    run = subprocess.run(
        [sys.executable, path],
        cwd=tmp_path,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=80,
    )

    assert run.returncode == 0, run.stdout + run.stderr
    matches = doctest.OutputChecker().check_output(promised(path), run.stdout, doctest.ELLIPSIS)
    assert matches, f"promised:\n{promised(path)}\nprinted:\n{run.stdout}\n{run.stderr}"
