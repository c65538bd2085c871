"""The processes of a development environment: an engine, and a Valkey server where it is wanted."""

import socket
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from mageflow.cli.development.environment import DEFAULT_NAME, Environment
from mageflow.engine import LocalEngine
from mageflow.errors import EngineError

__all__ = ["DevelopmentPorts", "start_services"]

_GRPC_PORT: Final = 7077
_API_PORT: Final = 7078
_REDIS_PORT: Final = 7079


@dataclass(frozen=True, slots=True)
class DevelopmentPorts:
    """The ports on 127.0.0.1 that were asked for. None takes the fixed one of the engine's name, 0 a free one."""

    grpc: int | None = None
    api: int | None = None
    redis: int | None = None

    def resolve(self, before: Environment) -> "DevelopmentPorts":
        """The ports to bind: the default engine has three known ones, another engine those of its last start."""
        fixed = (_GRPC_PORT, _API_PORT, _REDIS_PORT)
        if before.name != DEFAULT_NAME:
            fixed = (before.grpc_port or 0, before.api_port or 0, before.redis_port or 0)
        wanted = (self.grpc, self.api, self.redis)
        return DevelopmentPorts(*(known if port is None else port for port, known in zip(wanted, fixed, strict=True)))


@contextmanager
def start_services(
    name: str, ports: DevelopmentPorts, *, with_redis: bool, speed: float = 1.0
) -> Generator[tuple[LocalEngine, Environment]]:
    """Run an engine, and a Valkey server where wanted, for the length of the block, and write the env file.

    Args:
        name: The name of the engine.
        ports: The ports that were asked for.
        with_redis: Whether to run a Valkey server.
        speed: How much faster the engine's own waits pass.

    Yields:
        The engine and its environment.

    Raises:
        EngineError: A port is taken. The message says how to use the engine that runs, and how to start another.
        EngineStartError: The engine did not start.
        StoreUnavailableError: Valkey did not start.
        ConfigurationError: The extra ``local`` is not installed, or the env file cannot be written.
    """
    before = Environment.read(name)
    chosen = ports.resolve(before)
    for port in (chosen.grpc, chosen.api, chosen.redis if with_redis else 0):
        if port and _is_taken(port):
            raise EngineError(_taken(name, port, is_engine=before.is_answering()))
    with (
        _valkey(chosen.redis or 0, wanted=with_redis) as redis,
        LocalEngine(
            speed=speed, grpc_port=chosen.grpc or 0, api_port=chosen.api or 0, token_secret=before.token_secret
        ) as running,
    ):
        environment = Environment(name, {**running.environment(), **redis})
        environment.write()
        yield running, environment


@contextmanager
def _valkey(port: int, *, wanted: bool) -> Generator[dict[str, str]]:
    if not wanted:
        yield {}
        return
    from mageflow.testing import EmbeddedValkey

    with EmbeddedValkey(port=port) as valkey:
        yield {"MAGEFLOW_REDIS_URL": valkey.url}


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        # As the servers bind: a port in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
        return False


def _taken(name: str, port: int, *, is_engine: bool) -> str:
    another = "second" if name == DEFAULT_NAME else f"{name}-2"
    if is_engine:
        option = "" if name == DEFAULT_NAME else f" --name {name}"
        return (
            f"the development engine {name!r} runs already (port {port}): use it with "
            f"`mageflow run{option} -- PROGRAM`, or start another one: `mageflow engine --name {another}`"
        )
    return (
        f"port {port} of 127.0.0.1 is in use or not allowed: start the engine under another name, which takes free "
        f"ports (`mageflow engine --name {another}`), or choose ports with --grpc-port, --api-port and --redis-port "
        "(0 is a free one)"
    )
