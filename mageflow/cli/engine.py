"""``mageflow engine``: runs the local engine in the foreground and prints the variables that lead a program to it."""

import json
import signal
import sys
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click

from mageflow.cli.extras import require_local
from mageflow.engine import LocalEngine
from mageflow.errors import ConfigurationError, EngineError
from mageflow.files import PRIVATE, write_in_one_step

__all__ = ["engine"]

_WATCH_SECONDS = 0.2

_EPILOG = """\b
Examples:
  mageflow engine --redis                        all that a program needs
  mageflow engine --grpc-port 7077 --api-port 7078
                                                 the same ports each time
  mageflow engine --handshake-file engine.json   a file to wait for
  mageflow engine --json | head -1               the variables as JSON
  mageflow engine --speed 60                     a minute of sleep takes 1 s

\b
Copy the printed lines into another shell and start your program there:
Hatchet() reads these variables, and the program needs no change. Without a
second shell: HATCHET_CLIENT_EMBEDDED_BINARY_PATH=mageflow-engine lets
Hatchet.from_embedded() start an engine itself.

\b
Engine and Valkey listen on 127.0.0.1 only and keep everything in memory: for
development, demos and tests.
Exit status: 0 stopped by Ctrl-C or SIGTERM, 1 not started or stopped by
itself, 2 wrong arguments. Needs the extra "local".
"""


@click.command(epilog=_EPILOG)
@click.option("--grpc-port", type=click.IntRange(0, 65535), default=0, help="Port for workers. Default: a free port.")
@click.option(
    "--api-port", type=click.IntRange(0, 65535), default=0, help="Port of the REST API. Default: a free port."
)
@click.option("--redis", "with_redis", is_flag=True, help="Also run a Valkey server, for signatures, flows and locks.")
@click.option("--redis-port", type=click.IntRange(0, 65535), default=0, help="Port of this server. Implies --redis.")
@click.option(
    "--speed",
    metavar="FACTOR",
    type=click.FloatRange(min=0.0, min_open=True),
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
    grpc_port: int,
    api_port: int,
    redis_port: int,
    speed: float,
    handshake_file: Path | None,
    *,
    with_redis: bool,
    as_json: bool,
) -> None:
    """Run the local engine until Ctrl-C.

    Prints export lines for another shell. A Hatchet program that is started there uses this engine.
    """
    require_local("engine")
    stopped = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopped.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    with (
        _valkey(redis_port, wanted=with_redis or redis_port != 0) as redis,
        LocalEngine(speed=speed, grpc_port=grpc_port, api_port=api_port) as running,
    ):
        _serve(running, {**running.environment(), **redis}, stopped, handshake_file, as_json=as_json)


@contextmanager
def _valkey(port: int, *, wanted: bool) -> Generator[dict[str, str]]:
    """Run a Valkey server for the length of the block, and yield the variables that lead a client to it."""
    if not wanted:
        yield {}
        return
    from mageflow.testing import EmbeddedValkey

    with EmbeddedValkey(port=port) as valkey:
        yield {"MAGEFLOW_REDIS_URL": valkey.url}


def _serve(
    running: LocalEngine,
    variables: Mapping[str, str],
    stopped: threading.Event,
    handshake_file: Path | None,
    *,
    as_json: bool,
) -> None:
    try:
        if handshake_file is not None:
            _write(handshake_file, running.handshake.to_json())
        _announce(variables, as_json=as_json)
        while not stopped.wait(_WATCH_SECONDS):
            if running.exit_code is not None:
                raise EngineError(f"the engine stopped by itself with status {running.exit_code}")
        click.echo("# The engine is stopping.", err=True)
    finally:
        if handshake_file is not None:
            handshake_file.unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    try:
        write_in_one_step(path, text, mode=PRIVATE)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from error


def _announce(variables: Mapping[str, str], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(dict(variables)))
    else:
        for name, value in variables.items():
            click.echo(f"export {name}='{value}'")
        click.echo("# The engine is ready. Copy these lines into another shell; Ctrl-C here stops it.", err=True)
    sys.stdout.flush()
