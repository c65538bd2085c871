"""A program that is interrupted ends, says so, and leaves no process behind."""

import signal
import subprocess
import sys

import pytest

from tests.cli.interrupts import interrupt

pytestmark = pytest.mark.new_interpreters  # signals arrive during their imports


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "number", "after_seconds"),
    [
        ("demo", signal.SIGINT, 4.0),
        ("demo", signal.SIGKILL, 5.0),
        ("demo --serve", signal.SIGTERM, 2.0),
        ("engine --redis", signal.SIGINT, 2.0),
        ("engine --redis", signal.SIGHUP, 2.0),
        ("engine --redis", signal.SIGKILL, 2.0),
        ("dev", signal.SIGINT, 8.0),
        ("dev", signal.SIGKILL, 8.0),
        ("aio_run", signal.SIGINT, 5.0),
        ("aio_run", signal.SIGKILL, 5.0),
    ],
)
def test_an_interrupted_program_ends_and_leaves_nothing(program, number, after_seconds, tmp_path, monkeypatch):
    """One signal is enough, and servers, workers and the SDK's listeners are gone too."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    seen = interrupt(program, number, after_seconds)

    assert seen.is_right, seen
    assert "Traceback" not in seen.output or program == "aio_run"


IMPORTS_FOR_LONG = """
import os, signal

class Field:
    def __set_name__(self, owner, name):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(10**6):
            pass

class Message:
    field = Field()
"""


def test_ctrl_c_while_a_class_is_made_is_no_error_of_the_program(tmp_path):
    """Python before 3.12 makes a `RuntimeError` of it, which the command must not show as the program's."""
    (tmp_path / "shop.py").write_text(IMPORTS_FOR_LONG)
    ended = subprocess.run(
        [sys.executable, "-m", "mageflow", "worker", "shop"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ended.returncode, ended.stdout, ended.stderr.strip()) == (1, "", "Aborted!")
