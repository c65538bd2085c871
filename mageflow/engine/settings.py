"""The options of an engine process, and its command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

# From this version on, the SDK uses every feature of the protocol and prints no warning.
ENGINE_VERSION = "v0.111.0"

TOKEN_SECRET = "MAGEFLOW_ENGINE_TOKEN_SECRET"  # noqa: S105 - the name of a variable
"""The variable with the secret part of the token. It is no flag: every user of a machine can read the flags."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Options of one engine process.

    Attributes:
        handshake_file: where the handshake is written; None prints it on standard output.
        grpc_port: port of gRPC on 127.0.0.1; 0 takes a free one.
        api_port: port of REST on 127.0.0.1; 0 takes a free one.
        speed: factor by which engine-made waits are shortened: sleeps, backoff, crons, scheduled runs.
        worker_lost_after: seconds without a heartbeat after which a worker's tasks are requeued.
        keep_finished: finished runs that stay readable.
        log_level: level of the engine's log on standard error, a name of ``logging``.
        exit_with_stdin: whether the engine exits when standard input closes, which it does when the parent ends.
    """

    handshake_file: str | None = None
    grpc_port: int = 0
    api_port: int = 0
    speed: float = 1.0
    worker_lost_after: float = 30.0
    keep_finished: int = 10_000
    log_level: str = "warning"
    exit_with_stdin: bool = True


def parse_settings(arguments: Sequence[str]) -> Settings:
    """Return the settings from the flags that ``Hatchet.from_embedded()`` passes, and from flags of this engine.

    A flag has one dash or two, as in Go. Flags about databases and unknown flags are accepted and ignored.

    Raises:
        SystemExit: a value has the wrong type, or ``--help`` is given.
    """
    parser = argparse.ArgumentParser(prog="mageflow engine", description=__doc__, allow_abbrev=False)

    def option(name: str, **kwargs: object) -> None:
        parser.add_argument(f"-{name}", f"--{name}", **kwargs)  # pyright: ignore[reportArgumentType] - keywords of each option

    option("handshake-file", metavar="PATH", help="where to write the connection data; default: standard output")
    option("grpc-port", type=int, default=0, metavar="N", help="port for gRPC on 127.0.0.1; 0 picks a free one")
    option("api-port", type=int, default=0, metavar="N", help="port for REST on 127.0.0.1; 0 picks a free one")
    option("log-level", default="warning", metavar="LEVEL", help="debug, info, warning or error")
    option("speed", type=float, default=1.0, metavar="X", help="shorten engine-made waits by this factor")
    option("worker-lost-after", type=float, default=30.0, metavar="SECONDS", help="silence before reassignment")
    option("keep-finished", type=int, default=10_000, metavar="N", help="finished runs that stay readable")
    option("ignore-stdin", action="store_true", help="do not exit when standard input closes")
    for ignored in ("database-url", "rabbitmq-url", "postgres-data-dir"):
        option(ignored, help=argparse.SUPPRESS)
    for ignored in ("no-api", "no-migrations"):
        option(ignored, action="store_true", help=argparse.SUPPRESS)
    parsed, _unknown = parser.parse_known_args(list(arguments))
    return Settings(
        handshake_file=parsed.handshake_file,
        grpc_port=parsed.grpc_port,
        api_port=parsed.api_port,
        speed=parsed.speed,
        worker_lost_after=parsed.worker_lost_after,
        keep_finished=parsed.keep_finished,
        log_level=parsed.log_level,
        exit_with_stdin=not parsed.ignore_stdin,
    )
