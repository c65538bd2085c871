"""A real terminal for a program: tmux, with what is on its screen as text."""

import shlex
import subprocess
import time
import uuid
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager

__all__ = ["Terminal", "open_terminal"]


class Terminal:
    """One tmux server with one program in it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def _tmux(self, *arguments: str) -> str:
        command = ["tmux", "-L", self._name, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def press(self, *keys: str) -> None:
        """Press keys, by their names in tmux."""
        self._tmux("send-keys", *keys)

    def resize(self, columns: int, lines: int) -> None:
        """Change the size of the terminal."""
        self._tmux("resize-window", "-x", str(columns), "-y", str(lines))

    @property
    def screen(self) -> str:
        """What is on the screen."""
        return self._tmux("capture-pane", "-p")

    def wait_for(self, holds: Callable[[str], object], seconds: float = 30.0) -> str:
        """The screen, when it is as expected.

        Raises:
            AssertionError: It is not in time. The message is the screen.
        """
        ends = time.monotonic() + seconds
        while not holds(screen := self.screen):
            if time.monotonic() > ends:
                raise AssertionError(screen)
            time.sleep(0.2)
        return screen


@contextmanager
def open_terminal(
    command: list[str], environment: Mapping[str, str], *, columns: int = 150, lines: int = 44
) -> Generator[Terminal]:
    """A terminal in which a shell runs the command, and then prints ``status`` with its exit status."""
    name = f"mageflow-{uuid.uuid4().hex[:8]}"
    exports = [f"{key}={value}" for key, value in environment.items()]
    line = f"{shlex.join(['env', '-u', 'COLUMNS', '-u', 'LINES', *exports, *command])}; echo status $?; sleep 60"
    size = ["-x", str(columns), "-y", str(lines)]
    subprocess.run(["tmux", "-L", name, "-f", "/dev/null", "new-session", "-d", *size, line], check=True)
    try:
        yield Terminal(name)
    finally:
        subprocess.run(["tmux", "-L", name, "kill-server"], check=False, capture_output=True)
