"""A program that a test starts cannot keep the test waiting, and leaves nothing behind when the test fails."""

import signal
import sys

import psutil
import pytest

from tests.started_program import StartedProgram

SILENT = """
import sys, time
print("ready", flush=True)
print("why it waits", file=sys.stderr, flush=True)
time.sleep(600)
"""


def test_a_line_that_does_not_come_fails_with_all_output_and_ends_the_program():
    """The failure has both streams; the process is gone afterwards."""
    with StartedProgram([sys.executable, "-c", SILENT]) as run:
        assert run.line() == "ready\n"
        assert run.error_line() == "why it waits\n"
        assert not run.has_line(within=0.1)
        with pytest.raises(AssertionError, match=r"(?s)no further line within 0\.5 s.*ready\n.*why it waits"):
            run.line(within=0.5)
        with pytest.raises(AssertionError, match=r"(?s)did not end within 0\.5 s.*ready"):
            run.ended(within=0.5)
    assert not psutil.pid_exists(run.pid)


def test_a_program_that_ends_before_its_first_line_says_why():
    """Its status and its last words are in the failure."""
    program = "import sys; print('no such port', file=sys.stderr); sys.exit(3)"
    with (
        StartedProgram([sys.executable, "-c", program]) as run,
        pytest.raises(AssertionError, match=r"(?s)ended, or has closed its output.*status 3.*no such port"),
    ):
        run.line()


def test_the_rest_of_the_output_comes_with_the_end():
    """A signal is the status; lines that were read are left out."""
    program = "print('one'); print('two', flush=True); import time; time.sleep(600)"
    with StartedProgram([sys.executable, "-c", program]) as run:
        assert run.line() == "one\n"
        assert run.has_line(within=60)
        run.send_signal(signal.SIGKILL)
        assert run.ended() == (-signal.SIGKILL, "two\n", "")
