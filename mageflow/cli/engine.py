"""``mageflow engine``: the local engine in the foreground, with what to export in another shell."""

import json
import os
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
from mageflow.errors import EngineError

__all__ = ["engine"]

_WATCH_SECONDS = 0.2

_EPILOG = """\b
Examples:
  mageflow engine                                  free ports; copy the export lines it prints
  mageflow engine --grpc-port 7077 --api-port 7078 the same ports each time
  mageflow engine --redis                          a Valkey server too: signatures, flows and locks work at once
  mageflow engine --json | head -1                 one JSON object: the variables to set
  mageflow engine --handshake-file engine.json     for a script that waits for the file
  mageflow engine --speed 60                       a minute of timers and crons passes in a second

\b
Programs need no change: Hatchet() reads what is exported here. Without a shell in between,
HATCHET_CLIENT_EMBEDDED_BINARY_PATH=mageflow-engine makes Hatchet.from_embedded() start one itself.
Engine and Valkey keep everything in memory and listen on 127.0.0.1 only: for development, demos and tests.
"""


@click.command(epilog=_EPILOG)
@click.option(
    "--grpc-port", type=click.IntRange(0, 65535), default=0, help="Port workers connect to; 0 takes a free one."
)
@click.option("--api-port", type=click.IntRange(0, 65535), default=0, help="Port of the REST API; 0 takes a free one.")
@click.option(
    "--redis", "with_redis", is_flag=True, help="Run a Valkey server beside it, for signatures, flows and locks."
)
@click.option("--redis-port", type=click.IntRange(0, 65535), default=0, help="Port of that server; 0 takes a free one.")
@click.option(
    "--speed",
    type=click.FloatRange(min=0.0, min_open=True),
    default=1.0,
    show_default=True,
    help="How many seconds of the engine's timers pass in one.",
)
@click.option(
    "--handshake-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the address and the token here as JSON once the engine is ready; removed when it stops.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print the variables as one line of JSON instead of export lines."
)
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
    """Run the local engine until it is interrupted.

    Prints what another shell has to export so that any Hatchet program talks to it.
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
    """What leads a client to the Valkey server that runs meanwhile, or nothing."""
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
    finally:
        if handshake_file is not None:
            handshake_file.unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    # Under another name first: whoever polls for the file must never read half of it.
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.chmod(0o600)
    draft.replace(path)


def _announce(variables: Mapping[str, str], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(dict(variables)))
    else:
        for name, value in variables.items():
            click.echo(f"export {name}='{value}'")
        click.echo("# The engine is ready. Copy these lines into another shell; Ctrl-C here stops it.", err=True)
    sys.stdout.flush()
