"""Correct programs type-check, and programs that cannot work do not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def errors() -> dict[str, set[int]]:
    """The lines on which pyright reports an error, of each file. One run reads the SDK's types for both."""
    names = ("api.py", "refused.py")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pyright",
            "--outputjson",
            "--pythonpath",
            sys.executable,
            *(HERE / name for name in names),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=HERE.parent.parent,
    )
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == len(names), done.stdout
    found: dict[str, set[int]] = {name: set() for name in names}
    for each in report["generalDiagnostics"]:
        if each["severity"] == "error":
            found[Path(each["file"]).name].add(each["range"]["start"]["line"] + 1)
    return found


@pytest.mark.slow
def test_decorated_tasks_keep_their_types(errors: dict[str, set[int]]) -> None:
    """Input and output types survive every decorator, on every kind of task."""
    assert errors["api.py"] == set()


@pytest.mark.slow
def test_what_cannot_work_does_not_type_check(errors: dict[str, set[int]]) -> None:
    """Wrong clients, options, messages and results are errors before anything runs."""
    marked = {
        number
        for number, line in enumerate((HERE / "refused.py").read_text().splitlines(), start=1)
        if line.endswith("# refused")
    }
    assert errors["refused.py"] == marked
