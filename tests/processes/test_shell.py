"""A program that a shell starts by its name is a fork, and the shell sees what it sees of a new interpreter."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.processes.client import FORKS
from tests.processes.shell import forking_commands

pytestmark = pytest.mark.skipif(not FORKS, reason="every program is a new interpreter here")

PROGRAM = """
import os, signal, sys, time
print(os.getcwd(), os.environ["ASKED"], sys.argv, sys.stdin.read())
print("an error", file=sys.stderr)
match sys.argv[1]:
    case "waits":
        print("waits", flush=True)
        time.sleep(300)
    case "dies":
        os.kill(os.getpid(), signal.SIGTERM)
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def shell(tmp_path: Path) -> Callable[[str, bool], subprocess.Popen[str]]:
    """Starts bash with a line, with forks or with new interpreters."""
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "bin").mkdir()
    with ExitStack() as stack:
        forking = stack.enter_context(forking_commands(tmp_path / "bin"))

        def start(line: str, forks: bool) -> "subprocess.Popen[str]":
            folders = [*(forking if forks else []), str(Path(sys.executable).parent), os.environ["PATH"]]
            environment = {**os.environ, "PATH": os.pathsep.join(folders), "ASKED": "é\n"}
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            return subprocess.Popen(["bash", "-c", line], cwd=tmp_path, env=environment, text=True, **pipes)

        yield start


@pytest.mark.parametrize(
    "line",
    [
        "python program.py 0 'a b'",
        "python program.py 3",
        "cd bin && echo piped | python ../program.py 0 && echo next",
        "python program.py dies",
        "mageflow --version && mageflow no-such-command",
    ],
)
def test_a_shell_sees_no_difference(line: str, shell) -> None:
    """Output, errors and status are those of the program, which has the directory, the variables and the input."""
    ends = []
    for forks in (True, False):
        process = shell(line, forks)
        ends.append((*process.communicate("input", timeout=120), process.returncode))
    assert ends[0] == ends[1]
    assert ends[0][0] + ends[0][1]


def test_it_is_a_fork(shell) -> None:
    """The libraries of the server are there without an import, and mageflow is not."""
    line = 'echo \'import sys; print("hatchet_sdk" in sys.modules, "mageflow" in sys.modules)\' >a.py && python a.py'
    assert shell(line, True).communicate(timeout=120)[0] == "True False\n"
    assert shell(line, False).communicate(timeout=120)[0] == "False False\n"


@pytest.mark.parametrize("forks", [True, False])
def test_a_signal_reaches_the_program(forks: bool, shell) -> None:
    """`exec` gives it the process of the shell, to which a test sends Ctrl-C."""
    process = shell("exec python program.py waits </dev/null", forks)
    assert process.stdout is not None
    while process.stdout.readline() != "waits\n":
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert errors.endswith("KeyboardInterrupt\n")
    assert process.returncode == -signal.SIGINT
