"""A child process that does not outlive this one, however this one ends."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from mageflow.errors import MageflowError
from mageflow.forks import when_forked

__all__ = ["ChildProcess"]

_SUPERVISOR = Path(__file__).with_name("supervisor.py")


class ChildProcess:
    """A command in a process group of its own, under a supervisor that ends it with this process.

    SIGKILL of this process, a closed terminal and a crash end the command too: the supervisor waits for the end of a
    pipe that only this process holds. A signal of the terminal (Ctrl-C) does not reach the command. In a forked child
    of this process the object does nothing to the command, which is not its own.

    Args:
        command: The program and its arguments. No shell.
        output: An open file for stdout and stderr of the command.
        environment: All environment variables of the command.

    Attributes:
        pid: The process id of the command, and of its process group. It stays after the command has ended.
        is_inherited: Whether this process is a forked child of the one that started the command.

    Raises:
        MageflowError: The command cannot be started.
    """

    def __init__(self, command: Sequence[str], *, output: IO[bytes], environment: Mapping[str, str]) -> None:
        self.is_inherited = False
        self._supervisor = subprocess.Popen(  # noqa: S603 - our own interpreter and file, no shell
            [sys.executable, "-I", "-S", str(_SUPERVISOR), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            env=dict(environment),
            start_new_session=True,
        )
        when_forked(self._leave_to_parent)
        stdout = self._supervisor.stdout
        line = stdout.readline() if stdout is not None else b""
        if stdout is not None:
            stdout.close()
        if not line.strip().isdigit():
            self._supervisor.wait()
            self._close_pipe()
            raise MageflowError(f"{command[0]} cannot be started")
        self.pid = int(line)

    def poll(self) -> int | None:
        """Return the exit status of the command: negative for a signal, None while it runs."""
        status = self._supervisor.poll()
        if status is not None:
            self._close_pipe()
        return status

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the command alone. Does nothing when it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait(self, timeout_seconds: float | None = None) -> int:
        """Wait for the end of the command and return its exit status.

        Raises:
            subprocess.TimeoutExpired: It still runs after ``timeout_seconds``.
        """
        status = self._supervisor.wait(timeout_seconds)
        self._close_pipe()
        return status

    def kill(self) -> int:
        """Send SIGKILL to the whole process group, wait, and return the exit status."""
        with suppress(ProcessLookupError, PermissionError):
            if not self.is_inherited:
                os.killpg(self.pid, signal.SIGKILL)
        return self.wait()

    def _leave_to_parent(self) -> None:
        self.is_inherited = True
        self._close_pipe()  # with a copy of it the child would keep the command alive after the parent

    def _close_pipe(self) -> None:
        if self._supervisor.stdin is not None:
            with suppress(OSError):
                self._supervisor.stdin.close()
