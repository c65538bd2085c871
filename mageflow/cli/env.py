"""``mageflow env``: prints the variables of a development engine, for a shell."""

import shlex

import click

from mageflow.cli.development import Environment, name_option
from mageflow.terminal import json_text

__all__ = ["env"]

_EPILOG = """\b
Examples:
  eval "$(mageflow env)"                  this shell uses the engine
  mageflow env --name second              another engine
  mageflow env --json | jq -r .HATCHET_CLIENT_TOKEN
  mageflow env --path                     the env file, for an editor

\b
Exit status: 0 printed, 1 no such engine runs here, 2 wrong arguments.
"""


@click.command(epilog=_EPILOG)
@name_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--path", "as_path", is_flag=True, help="Print the path of the env file, also if no engine runs.")
def env(name: str, *, as_json: bool, as_path: bool) -> None:
    """Print the variables that lead a program to the engine of `mageflow engine` or `mageflow dev`."""
    if as_path:
        click.echo(str(Environment.path_of(name)))
        return
    variables = Environment.of_running_engine(name).variables
    if as_json:
        click.echo(json_text(dict(variables)))
    else:
        for variable, value in variables.items():
            click.echo(f"export {variable}={shlex.quote(value)}")
