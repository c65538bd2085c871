"""The command ``mageflow``: it lists its commands without importing them, and prints an error as one line.

Exit status: 0 success, 1 failure, 2 wrong arguments or configuration (errors of click, and `ConfigurationError`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module, metadata
from typing import Any

import click

from mageflow.cli.failures import Failure, UsageFailure, complain, is_interrupt
from mageflow.cli.narrow_help import NarrowContext
from mageflow.did_you_mean import hint
from mageflow.distribution import installed_version, installs, warn_other_distribution
from mageflow.errors import ConfigurationError, MageflowError
from mageflow.terminal import printable

__all__ = ["COMMANDS", "CommandHome", "main", "root"]


@dataclass(frozen=True, slots=True)
class CommandHome:
    """Where a command is defined, and its line in ``mageflow --help``, which does not import it."""

    module: str
    attribute: str
    summary: str


_SECTIONS = {
    "Try and develop": {
        "demo": CommandHome(
            "mageflow.cli.demo", "demo", "Run tasks of every kind on this machine and report the result."
        ),
        "dev": CommandHome("mageflow.cli.dev", "dev", "Run engine, Valkey and your worker, with reload and one log."),
        "run": CommandHome("mageflow.cli.run", "run", "Run a program with a development engine."),
        "engine": CommandHome("mageflow.cli.engine", "engine", "Run the local engine, for programs that use Hatchet."),
        "env": CommandHome("mageflow.cli.env", "env", "Print the variables of a development engine, for a shell."),
    },
    "Run workers": {
        "doctor": CommandHome("mageflow.cli.doctor", "doctor", "Check what workers depend on, and how to repair it."),
        "worker": CommandHome(
            "mageflow.cli.worker", "worker", "Run the worker of a module, after checking what it needs."
        ),
        "dashboards": CommandHome(
            "mageflow.cli.dashboards", "dashboards", "Export and check the Grafana dashboards, rules and runbook."
        ),
    },
    "See what happens": {
        "top": CommandHome("mageflow.cli.top", "top", "Watch tasks, locks, flows, errors and traces live."),
        "tail": CommandHome("mageflow.cli.tail", "tail", "Print what happens, as it happens."),
        "list": CommandHome(
            "mageflow.cli.list_signatures", "list_signatures", "List stored signatures, chains and swarms."
        ),
        "inspect": CommandHome("mageflow.cli.inspect", "inspect", "Show a stored signature, chain or swarm."),
        "locks": CommandHome("mageflow.cli.locks", "locks", "Show who holds which lock, and who waits for it."),
        "damaged": CommandHome(
            "mageflow.cli.damaged", "damaged", "List what in Redis cannot be read and was put aside."
        ),
        "mcp": CommandHome(
            "mageflow.cli.mcp", "mcp", "Answer the questions of an assistant about flows, locks and waits."
        ),
    },
    "Act on signatures, chains and swarms": {
        "start": CommandHome("mageflow.cli.start", "start", "Start a stored signature, chain or swarm."),
        "suspend": CommandHome("mageflow.cli.lifecycle", "suspend", "Let nothing more of a chain or swarm start."),
        "resume": CommandHome("mageflow.cli.lifecycle", "resume", "Continue what was suspended."),
        "interrupt": CommandHome("mageflow.cli.lifecycle", "interrupt", "End signatures, chains or swarms now."),
        "cancel": CommandHome("mageflow.cli.cancel", "cancel", "Cancel the runs of a signature, chain or swarm."),
    },
}
"""The commands under their headings in ``mageflow --help``, in the order in which a user needs them."""

COMMANDS = dict(sorted(item for section in _SECTIONS.values() for item in section.items()))
"""Every command, in the order of its name."""

_EPILOG = """\b
Examples:
  mageflow demo             a first look: everything on this machine, in 15 s
  mageflow engine --redis   a local engine and Redis, for your own program
  mageflow COMMAND --help   what a command does, with examples
"""


class _LazyGroup(click.Group):
    context_class = NarrowContext

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        home = COMMANDS.get(cmd_name)
        if home is None:
            return None
        command = getattr(import_module(home.module), home.attribute)
        for each in (command, *getattr(command, "commands", {}).values()):
            each.context_class = NarrowContext
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, COMMANDS))  # one column of summaries for all sections
        for heading, section in _SECTIONS.items():
            with formatter.section(heading):
                formatter.write_dl([(f"{name:{width}}", home.summary) for name, home in section.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"No such command {args[0]!r}{hint(args[0], COMMANDS)}", ctx)
        try:
            return super().resolve_command(ctx, args)
        except ModuleNotFoundError as missing:
            # In a complete installation only a module of an extra can be missing.
            raise UsageFailure(f"{args[0]} needs {missing.name}: {installs('local')}") from missing

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return self._invoke(ctx)
        except Exception as error:
            if is_interrupt(error):
                raise KeyboardInterrupt from error
            raise

    def _invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            shown = printable(error.format_message(), keep="\n")
            if shown == error.format_message():
                raise
            raise click.UsageError(shown, error.ctx) from error
        except Failure:
            raise
        except click.ClickException as error:
            raise Failure(error.format_message()) from error
        except ConfigurationError as error:
            raise UsageFailure(str(error)) from error
        except MageflowError as error:
            raise Failure(str(error)) from error


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click calls it so
    if value and not ctx.resilient_parsing:
        click.echo(f"mageflow {installed_version() or 'not installed'}, hatchet-sdk {metadata.version('hatchet-sdk')}")
        ctx.exit()


@click.group(cls=_LazyGroup, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the versions of mageflow and of the Hatchet SDK, and exit.",
)
def _mageflow() -> None:
    """An observability-first client for Hatchet."""


def root() -> click.Group:
    """The group of all commands, to look at."""
    return _mageflow


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status.

    Args:
        arguments: The arguments after ``mageflow``. None takes those of the process.

    Raises:
        SystemExit: Always, with the exit status.
    """
    warning = warn_other_distribution()
    if warning is not None:
        complain(f"warning: {warning}")
    _mageflow.main(args=None if arguments is None else list(arguments), prog_name="mageflow")
