"""Runs one command and ends it when the process that asked for it is gone, however it ended.

``python -I supervisor.py COMMAND...`` starts the command in a session of its own, prints its process id on stdout, and
then waits for two things: the end of the command, and the end of its own stdin. The parent holds the other end of
stdin and never writes. The operating system closes it when the parent ends, also by SIGKILL, so no command outlives
its parent: the whole process group of the command gets SIGTERM, and SIGKILL after `GRACE_SECONDS`.

On Linux the kernel also ends the command when the supervisor itself is killed (``PR_SET_PDEATHSIG``).

This file runs as a program of its own and imports only the standard library.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from typing import Final

GRACE_SECONDS: Final = 5.0
_PR_SET_PDEATHSIG: Final = 1


def _end_with_parent() -> None:
    """Ask the kernel to kill this process when the supervisor ends. Runs in the child, before the command."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    # The group outlives its first process: a worker's own children are in it.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def supervise(command: list[str]) -> int:
    """Run the command until it ends or stdin is closed; return its exit status."""
    # Signals of a terminal are for the parent; it closes stdin when it ends.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    output = os.fdopen(os.dup(1), "w")
    process = subprocess.Popen(  # noqa: S603 - the parent's own command, no shell
        command,
        stdin=subprocess.DEVNULL,
        stdout=2,
        start_new_session=True,
        preexec_fn=_prepare,  # noqa: PLW1509 - this process has one thread here
    )
    print(process.pid, file=output, flush=True)

    def wait_for_parent() -> None:
        while os.read(0, 4096):
            pass
        _signal_group(process, signal.SIGTERM)
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            _signal_group(process, signal.SIGKILL)

    threading.Thread(target=wait_for_parent, daemon=True).start()
    status = process.wait()
    # What is left of the group, such as a worker's listener process, has lost its parent.
    _signal_group(process, signal.SIGKILL)
    if status < 0:
        _end_like(signal.Signals(-status))
    return status


def _end_like(number: signal.Signals) -> None:
    """End by the signal that ended the command, so that the parent sees the same status."""
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _prepare() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    _end_with_parent()


if __name__ == "__main__":
    sys.exit(supervise(sys.argv[1:]))
