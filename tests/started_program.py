"""A program that a test starts: every line has a time limit, and the program ends with the block."""

import asyncio
import queue
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple, Self

__all__ = ["Ended", "StartedProgram"]

WITHIN_SECONDS = 90.0
"""Python imports the package in a second alone, and in many times that beside a test suite."""


class Ended(NamedTuple):
    """How a program ended."""

    status: int
    """Negative for a signal."""
    output: str
    """What it printed to standard output and no call of `StartedProgram.line` has returned."""
    errors: str
    """The same of standard error."""


class _Lines:
    """The lines of a pipe. A thread reads them, so that a test can wait for one with a limit."""

    def __init__(self, pipe: IO[str]) -> None:
        self._pipe = pipe
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._next: list[str | None] = []
        self.printed: list[str] = []
        self._reader = threading.Thread(target=self._read, name="reads a program", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with self._pipe, suppress(ValueError):
            for line in self._pipe:
                self.printed.append(line)
                self._lines.put(line)
        self._lines.put(None)

    def peek(self, within: float) -> bool:
        """Whether there is a line, or the end, in time."""
        if not self._next:
            with suppress(queue.Empty):
                self._next.append(self._lines.get(timeout=max(within, 0.0)))
        return bool(self._next)

    def next(self) -> str | None:
        """The line that `peek` has found; None for the end, again and again."""
        return self._next[0] if self._next[0] is None else self._next.pop()

    def rest(self, deadline: float) -> str:
        """Every further line, up to the end or the deadline."""
        lines: list[str] = []
        while self.peek(deadline - time.monotonic()) and (line := self.next()) is not None:
            lines.append(line)
        return "".join(lines)

    def join(self, seconds: float) -> None:
        self._reader.join(seconds)


class StartedProgram:
    """A program for a ``with`` block, which kills what is left of it.

    Args:
        command: The program and its arguments.
        cwd: Its directory; None for that of this process.
        env: All its variables; None for those of this process.
        merged: Whether standard error goes to standard output.
        has_input: Whether standard input is a pipe, which `close_input` closes; else it is empty.

    Attributes:
        process: The process.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        merged: bool = False,
        has_input: bool = False,
    ) -> None:
        self._command = command
        # A shell starts a program in the background with SIGINT ignored, and children inherit that.
        before = signal.signal(signal.SIGINT, signal.SIG_DFL)
        try:
            self.process = subprocess.Popen(
                command,
                cwd=cwd,
                env=env,
                stdin=subprocess.PIPE if has_input else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if merged else subprocess.PIPE,
                text=True,
                errors="replace",
            )
        finally:
            signal.signal(signal.SIGINT, before)
        assert self.process.stdout is not None
        self._output = _Lines(self.process.stdout)
        self._errors = None if self.process.stderr is None else _Lines(self.process.stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close_input()
        self.process.kill()
        self.process.wait()
        for each in self._pipes():
            each.join(10)  # what it has started may hold the pipe open a little longer

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    def line(self, within: float = WITHIN_SECONDS) -> str:
        """The next line of standard output, with its end. Fails with all output if it does not come."""
        return self._line(self._output, within)

    def error_line(self, within: float = WITHIN_SECONDS) -> str:
        """The next line of standard error, as `line`."""
        assert self._errors is not None
        return self._line(self._errors, within)

    def has_line(self, within: float) -> bool:
        """Whether a line of standard output comes in time; `line` then returns it at once."""
        return self._output.peek(within)

    async def listens(self, port: int, within: float = WITHIN_SECONDS) -> None:
        """Wait until a port of this machine takes connections. Fails with all output if it does not."""
        deadline = time.monotonic() + within
        while True:
            with socket.socket() as found:
                if found.connect_ex(("127.0.0.1", port)) == 0:
                    return
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise self._failure(f"did not listen at port {port} within {within} s")
            await asyncio.sleep(0.05)

    def close_input(self) -> None:
        """Close its standard input, as the end of its parent does."""
        if self.process.stdin is not None:
            self.process.stdin.close()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the program alone."""
        self.process.send_signal(number)

    def ended(self, within: float = WITHIN_SECONDS) -> Ended:
        """Wait for its end. Fails with all output if it does not come."""
        deadline = time.monotonic() + within
        try:
            status = self.process.wait(within)
        except subprocess.TimeoutExpired:
            raise self._failure(f"did not end within {within} s") from None
        output, errors = ("" if each is None else each.rest(deadline) for each in (self._output, self._errors))
        return Ended(status, output, errors)

    def _line(self, lines: _Lines, within: float) -> str:
        if not lines.peek(within):
            raise self._failure(f"printed no further line within {within} s")
        line = lines.next()
        if line is None:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(5)  # its status and its last words come a moment after the end of the pipe
                for each in self._pipes():
                    each.join(5)
            raise self._failure("ended, or has closed its output, before the line")
        return line

    def _pipes(self) -> list[_Lines]:
        return [each for each in (self._output, self._errors) if each is not None]

    def _failure(self, what: str) -> AssertionError:
        printed = "--- standard error ---\n".join("".join(each.printed) for each in self._pipes())
        command = " ".join(str(each) for each in self._command)
        return AssertionError(f"{command} {what} (status {self.process.poll()}):\n{printed}")
