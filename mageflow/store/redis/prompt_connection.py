"""Connections that write a command with less CPU than redis-py's, for clients that are made from a URL.

redis-py bounds each write by ``socket_timeout``; with Python 3.11 that starts a task per command, which takes a tenth
of the round trip. A write that fits into asyncio's buffer does not wait, so it needs no bound. Reads keep theirs, and
so do writes that may wait: larger commands, and those that connect first or check the connection's health.

redis-py puts a command together argument by argument, and copies all before it each time. A script has up to
twenty-five short arguments; here they are joined once.

Only what redis-py documents is overridden here: a ``connection_class`` of a pool.
"""

from collections.abc import Iterable
from typing import Any, Final

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection

__all__ = ["prompt"]

_BUFFERED_BYTES: Final = 32_768
"""Half of what asyncio buffers before a write waits. The buffer of an idle connection is empty."""

_COPIED_BYTES: Final = 6000
"""Of one argument, as in redis-py. A longer one is written without a copy."""


class _PromptConnection(AbstractConnection):
    def pack_command(self, *args: Any) -> list[bytes]:
        """The command in one piece. What is not usual is left to redis-py: its checks, and arguments without a copy."""
        name, encoder = args[0], self.encoder
        if (
            type(name) is not str
            or not name.isalnum()  # redis-py splits a name such as "CONFIG GET"
            or encoder.encoding != "utf-8"
            or encoder.encoding_errors != "strict"
        ):
            return super().pack_command(*args)
        # As text, which is encoded once for all: encoding each argument takes twice as long.
        parts = [f"*{len(args)}"]
        for value in args:
            kind = type(value)
            if kind is str:
                size = len(value) if value.isascii() else len(value.encode())
                if size > _COPIED_BYTES:
                    return super().pack_command(*args)
                parts.append(f"${size}\r\n{value}")
            elif kind is int or kind is float:
                number = repr(value)
                parts.append(f"${len(number)}\r\n{number}")
            else:
                return super().pack_command(*args)
        parts.append("")
        return ["\r\n".join(parts).encode()]

    async def send_packed_command(
        self,
        command: bytes | str | Iterable[bytes],
        check_health: bool = True,  # noqa: FBT001, FBT002 - redis-py's
    ) -> None:
        parts: Any = [command] if isinstance(command, bytes | str) else list(command)
        bound = self.socket_timeout
        may_wait = not self.is_connected or self.health_check_interval or sum(map(len, parts)) > _BUFFERED_BYTES
        if bound is None or may_wait:
            await super().send_packed_command(parts, check_health)
            return
        self.socket_timeout = None
        try:
            await super().send_packed_command(parts, check_health)
        finally:
            self.socket_timeout = bound


class _Tcp(_PromptConnection, Connection):
    pass


class _Tls(_PromptConnection, SSLConnection):
    pass


class _Unix(_PromptConnection, UnixDomainSocketConnection):
    pass


_PROMPT: Final[dict[type[Any], type[Any]]] = {Connection: _Tcp, SSLConnection: _Tls, UnixDomainSocketConnection: _Unix}


def prompt(connection_class: type[Any]) -> type[Any]:
    """The connection that writes without a task, in place of one of redis-py's; any other class as it is."""
    return _PROMPT.get(connection_class, connection_class)
