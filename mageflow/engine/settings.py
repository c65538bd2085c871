"""How an engine process runs: what its command line says."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

# At or above this the SDK uses every protocol feature it has and warns about nothing.
ENGINE_VERSION = "v0.111.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Options of one engine process.

    Attributes:
        handshake_file: where to write the handshake; None prints it on standard output.
        grpc_port: 0 picks a free one. Always on 127.0.0.1.
        api_port: as ``grpc_port``, for REST.
        speed: factor by which engine-made waits are shortened (sleeps, backoff, cron, schedules).
        worker_lost_after: seconds without a heartbeat before a worker's tasks are reassigned.
        keep_finished: finished runs that stay readable.
        log_level: of the engine's own log, on standard error.
        exit_with_stdin: exit when standard input closes, i.e. when the parent process is gone.
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
    """Return settings from the flags that ``Hatchet.from_embedded()`` passes, and a few of the engine's own.

    Flags may have one dash or two, as in Go. Flags about databases are accepted and ignored: there is none.
    """
    parser = argparse.ArgumentParser(prog="mageflow engine", description=__doc__, allow_abbrev=False)

    def option(name: str, **kwargs: object) -> None:
        parser.add_argument(f"-{name}", f"--{name}", **kwargs)  # pyright: ignore[reportArgumentType]

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
