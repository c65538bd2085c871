"""Every example prints what its docstring says, as a program of its own with a real worker."""

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


def documented_output(path: Path) -> str:
    """The output in the docstring of an example."""
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    _, found, block = docstring.partition("Prints::\n\n")
    assert found, f"{path.name} needs a block 'Prints::' in its docstring"
    return textwrap.dedent(block).strip() + "\n"


def test_every_example_is_in_the_list(root):
    """The list of examples names each file, and no other."""
    listed = re.findall(r"\]\(([\w.]+\.py)\)", (root / "examples" / "README.md").read_text())

    assert sorted(listed) == [path.name for path in EXAMPLES]


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_prints_the_documented_output(path, mageflow_worker, mageflow_redis, tmp_path):
    """The worker of the example starts, and its program prints the output in its docstring."""
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
    matches = doctest.OutputChecker().check_output(documented_output(path), run.stdout, doctest.ELLIPSIS)
    assert matches, f"documented:\n{documented_output(path)}\nprinted:\n{run.stdout}\n{run.stderr}"
