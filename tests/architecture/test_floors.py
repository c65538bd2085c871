"""Imports go down the floors of the house."""

import subprocess
import sys
from pathlib import Path


def test_imports_go_down_the_floors(root: Path):
    """Every contract of import-linter in pyproject.toml holds."""
    run = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stdout + run.stderr
