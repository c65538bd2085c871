"""How `.ci/run` ends."""

import subprocess
from pathlib import Path

import pytest


@pytest.mark.parametrize("status", [0, 1])
@pytest.mark.parametrize("left", ["true & wait $!", "sleep 60 &"])
def test_status_of_the_gate_is_that_of_the_tests(root: Path, tmp_path: Path, status: int, left: str) -> None:
    """Its last step ends what still runs and deletes the copy, and changes no status, also where nothing runs."""
    lines = (root / ".ci/run").read_text().splitlines()
    [options] = [each for each in lines if each.startswith("set -")]
    [trap] = [each for each in lines if each.startswith("trap ")]
    copy = tmp_path / "copy"
    copy.mkdir()
    script = "\n".join([options, f"scratch={copy}", trap, left, f"exit {status}"])

    assert subprocess.run(["bash", "-c", script], check=False, timeout=30).returncode == status
    assert not copy.exists()
