"""``mageflow engine``: runs the local engine in the foreground and writes the variables that lead a program to it."""

import json
import shlex
import sys
from pathlib import Path

import click

from mageflow.cli.development import DEFAULT_NAME, DevelopmentPorts, Environment, name_option, start_services
from mageflow.cli.extras import require_local
from mageflow.cli.interrupts import StopRequest, stop_on_signals
from mageflow.cli.numbers import FiniteRange
from mageflow.engine import LocalEngine
from mageflow.errors import ConfigurationError, EngineError
from mageflow.files import PRIVATE, write_in_one_step

__all__ = ["engine"]

_WATCH_SECONDS = 0.2

_EPILOG = """\b
Examples:
  mageflow engine --redis                        all that a program needs
  mageflow engine --name second                  one more, on ports of its own
  mageflow engine --handshake-file engine.json   a file to wait for
  mageflow engine --json | head -1               the variables as JSON
  mageflow engine --speed 60                     a minute of sleep takes 1 s

\b
In another terminal:
  mageflow run -- python worker.py               a program on this engine
  eval "$(mageflow env)"                         or the whole shell

\b
Hatchet() reads the variables that these set; the program needs no change.
Ports and token of an engine stay the same at each start. Without a second
shell: HATCHET_CLIENT_EMBEDDED_BINARY_PATH=mageflow-engine lets
Hatchet.from_embedded() start an engine itself.

\b
Engine and Valkey listen on 127.0.0.1 only and keep everything in memory: for
development, demos and tests.
Exit status: 0 stopped by Ctrl-C or SIGTERM, 1 not started or stopped by
itself, 2 wrong arguments. Needs the extra "local".
"""

_PORT = click.IntRange(0, 65535)


@click.command(epilog=_EPILOG)
@name_option
@click.option("--grpc-port", type=_PORT, help="Port for workers. Default: 7077; 0 is a free one.")
@click.option("--api-port", type=_PORT, help="Port of the REST API. Default: 7078; 0 is a free one.")
@click.option("--redis", "with_redis", is_flag=True, help="Also run a Valkey server, for signatures, flows and locks.")
@click.option("--redis-port", type=_PORT, help="Port of this server. Implies --redis. Default: 7079; 0 is a free one.")
@click.option(
    "--speed",
    metavar="FACTOR",
    type=FiniteRange(min=0.0, min_open=True),
    default=1.0,
    show_default=True,
    help="How much faster sleeps, crons, schedules and retry delays pass. Timeouts are not changed.",
)
@click.option(
    "--handshake-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write addresses and token to this JSON file when the engine is ready. The file is removed at the end.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the variables as one line of JSON.")
def engine(
    name: str,
    grpc_port: int | None,
    api_port: int | None,
    redis_port: int | None,
    speed: float,
    handshake_file: Path | None,
    *,
    with_redis: bool,
    as_json: bool,
) -> None:
    """Run the local engine until Ctrl-C.

    Other terminals use it with `mageflow run -- PROGRAM`. Also prints its variables as export lines.
    """
    require_local("engine")
    stopped = stop_on_signals("# The engine is stopping.")
    ports = DevelopmentPorts(grpc_port, api_port, redis_port)
    with start_services(name, ports, with_redis=with_redis or redis_port is not None, speed=speed) as services:
        running, environment = services
        _serve(running, environment, stopped, handshake_file, as_json=as_json)


def _serve(
    running: LocalEngine,
    environment: Environment,
    stopped: StopRequest,
    handshake_file: Path | None,
    *,
    as_json: bool,
) -> None:
    try:
        if handshake_file is not None:
            _write(handshake_file, running.handshake.to_json())
        _announce(environment, as_json=as_json)
        while not stopped.wait(_WATCH_SECONDS):
            if running.exit_code is not None:
                raise EngineError(f"the engine stopped by itself with status {running.exit_code}")
    finally:
        if handshake_file is not None:
            handshake_file.unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    try:
        write_in_one_step(path, text, mode=PRIVATE)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from error


def _announce(environment: Environment, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(dict(environment.variables)))
    else:
        for name, value in environment.variables.items():
            click.echo(f"export {name}={shlex.quote(value)}")
        option = "" if environment.name == DEFAULT_NAME else f"--name {environment.name} "
        click.echo(
            f"# The engine is ready. In another terminal: mageflow run {option}-- python PROGRAM.py\n"
            f'# The whole shell: eval "$(mageflow env{f" {option}".rstrip()})". Ctrl-C here stops the engine.',
            err=True,
        )
    sys.stdout.flush()
