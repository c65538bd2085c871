"""Correct programs type-check, and programs that cannot work do not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def diagnostics(name: str) -> set[int]:
    """The lines pyright reports an error on."""
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, str(HERE / name)],
        capture_output=True,
        text=True,
        check=False,
        cwd=HERE.parent.parent,
    )
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == 1, done.stdout
    return {each["range"]["start"]["line"] + 1 for each in report["generalDiagnostics"] if each["severity"] == "error"}


@pytest.mark.slow
def test_decorated_tasks_keep_their_types() -> None:
    """Input and output types survive every decorator, on every kind of task."""
    assert diagnostics("api.py") == set()


@pytest.mark.slow
def test_what_cannot_work_does_not_type_check() -> None:
    """Wrong clients, options, messages and results are errors before anything runs."""
    marked = {
        number
        for number, line in enumerate((HERE / "refused.py").read_text().splitlines(), start=1)
        if line.endswith("# refused")
    }
    assert diagnostics("refused.py") == marked
