"""How a command says that it failed: one line on stderr that begins with ``mageflow:``, and an exit status."""

from typing import Any

import click

from mageflow.terminal import printable

__all__ = ["Failure", "UsageFailure", "complain", "is_interrupt"]


def complain(message: str) -> None:
    """Print a message as a line on stderr. Control characters in it become visible escapes."""
    click.echo(printable(f"mageflow: {message}", keep="\n"), err=True)


class Failure(click.ClickException):
    """Ends the command with its message on stderr and status 1."""

    def show(self, file: Any = None) -> None:
        """Print it. Click calls this."""
        complain(self.message)


class UsageFailure(Failure):
    """Ends the command with its message on stderr and status 2."""

    exit_code = 2


def is_interrupt(error: BaseException | None) -> bool:
    """Whether Ctrl-C is the cause: Python before 3.12 makes a `RuntimeError` of it while a class is made."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, KeyboardInterrupt):
            return True
        seen.add(id(error))  # causes can go in a circle
        error = error.__cause__
    return False
