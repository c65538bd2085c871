"""``mageflow dev``: engine, Valkey and the user's worker in one terminal, with reload and a readable log."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mageflow.cli.development import DEFAULT_NAME, DevelopmentPorts, Environment, name_option, start_services
from mageflow.cli.extras import LIVE_VIEW, missing_extra, require_local
from mageflow.cli.interrupts import stop_on_signals

if TYPE_CHECKING:
    from mageflow.cli.development.log_view import LogView

__all__ = ["dev"]

_EPILOG = """\b
Examples:
  mageflow dev worker.py                everything for this worker
  mageflow dev shop.tasks:client        a module, and which client
  mageflow dev worker.py --verbose      every field, and the SDK's own lines

\b
Then send work from another terminal:
  mageflow run -- python run.py

\b
Runs every task of the client, as `mageflow worker` does; the main block of
the module is not run. When a Python file below this directory changes, the
worker finishes its tasks, for at most 10 s, and starts again; engine and
Valkey stay. An engine that runs already is used.
Exit status: 0 stopped by Ctrl-C or SIGTERM, 1 engine or Valkey do not
start, 2 wrong arguments. Needs the extra "local".
"""


@click.command(epilog=_EPILOG)
@click.argument("target", metavar="MODULE[:CLIENT]")
@name_option
@click.option("--slots", type=click.IntRange(1, 100_000), help="How many tasks run at a time. Default: 100.")
@click.option("--verbose", is_flag=True, help="Print every field, and the lines of the Hatchet SDK.")
def dev(target: str, name: str, slots: int | None, *, verbose: bool) -> None:
    """Run engine, Valkey and the worker of MODULE, and start the worker again when a file changes."""
    require_local("dev")
    from mageflow.cli.console import DataConsole
    from mageflow.cli.development.log_view import LogView
    from mageflow.cli.development.reloading import ReloadedWorker, run_until_stopped
    from mageflow.cli.redis_options import PIPE_WIDTH

    stopped = stop_on_signals("Stopping: the worker ends its tasks, for at most 10 s.")
    view = LogView(DataConsole(width=PIPE_WIDTH), is_verbose=verbose)
    with _environment(name, view) as environment:
        option = "" if name == DEFAULT_NAME else f"--name {name} "
        view.note(f"Engine {environment.variables['HATCHET_CLIENT_HOST_PORT']}, Redis {_redis_of(environment)}")
        view.note(f"Send work from another terminal: mageflow run {option}-- python PROGRAM.py")
        install = missing_extra("top", *LIVE_VIEW)
        first = "" if install is None else f"{install}, then "
        view.note(f"Live view: {first}mageflow run {option}-- mageflow top")
        view.note("Ctrl-C stops everything.")
        arguments = [target] if slots is None else [target, "--slots", str(slots)]
        run_until_stopped(ReloadedWorker(arguments, environment.variables, view), Path.cwd(), view, stopped)
        view.note("Stopped.")


@contextmanager
def _environment(name: str, view: "LogView") -> Generator[Environment]:
    """The engine that runs already under this name, or a new one for the length of the block."""
    found = Environment.read(name)
    if found.is_answering() and found.redis_port is not None:
        view.note(f"The development engine {name!r} runs already and is used.")
        yield found
        return
    with start_services(name, DevelopmentPorts(), with_redis=True) as (_, environment):
        yield environment


def _redis_of(environment: Environment) -> str:
    return environment.variables.get("MAGEFLOW_REDIS_URL", "none").removeprefix("redis://")
