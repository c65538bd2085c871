"""``mageflow run``: runs a program with the variables of a development engine."""

import os
import sys

import click

from mageflow.cli.development import Environment, name_option
from mageflow.errors import ConfigurationError

__all__ = ["run"]

_EPILOG = """\b
Examples:
  mageflow run -- python run.py           with the engine on this machine
  mageflow run -- pytest tests            any program
  mageflow run --name second -- bash      a shell that uses another engine

\b
The variables win over those of this shell. The program takes the place of
mageflow: its exit status is the one that you see.
Exit status: that of the program; 1 no such engine runs here, 2 wrong
arguments, or no such program.
"""


@click.command(epilog=_EPILOG, context_settings={"ignore_unknown_options": False})
@name_option
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- PROGRAM [ARGUMENT]...")
def run(name: str, command: tuple[str, ...]) -> None:
    """Run a program with the engine of `mageflow engine` or `mageflow dev`.

    Sets the variables that lead Hatchet() and Mageflow() to the engine and to its Redis.
    """
    environment = Environment.of_running_engine(name)
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execvpe(command[0], list(command), {**os.environ, **environment.variables})  # noqa: S606 - the user's own program, no shell
    except OSError as error:
        raise ConfigurationError(f"{command[0]} cannot be run: {error.strerror}") from error
