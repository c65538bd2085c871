"""Connections that run a script with less CPU than redis-py's, for clients that are made from a URL.

redis-py bounds each write by ``socket_timeout``; with Python 3.11 that starts a task per command, which takes a tenth
of the round trip. A write that fits into asyncio's buffer does not wait, so it needs no bound. Reads keep theirs, and
so do writes that may wait: larger commands, and those that connect first or check the connection's health.

redis-py puts a command together argument by argument, and copies all before it each time. A script has up to
twenty-five short arguments; here they are joined once.

A round trip of redis-py 8.1 runs about thirty coroutines: they take a connection from the pool and give it back, check
it, count for redis-py's own metrics, and start a timeout. `ask` writes and reads, with one timer for many calls.

Only what redis-py documents is overridden here: a ``connection_class`` of a pool.
"""

import asyncio
from collections.abc import Iterable
from typing import Any, Final, cast

import redis.exceptions
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection

__all__ = ["PromptConnection", "prompt"]

_BUFFERED_BYTES: Final = 32_768
"""Half of what asyncio buffers before a write waits. The buffer of an idle connection is empty."""

_COPIED_BYTES: Final = 6000
"""Of one argument, as in redis-py. A longer one is written without a copy."""


class PromptConnection(AbstractConnection):
    """A connection of a client that is made from a URL."""

    _asked_at: float | None = None
    """When the command was written whose answer is awaited; None while none is."""
    _watch: asyncio.TimerHandle | None = None

    def is_ready(self) -> bool:
        """Whether `ask` may be called: connected, nothing to read, and nothing else that redis-py would do first."""
        reader = self._reader
        return (
            reader is not None
            and self._writer is not None
            and not self.health_check_interval
            and not reader.at_eof()
            and reader.exception() is None
            and not getattr(reader, "_buffer", b"")  # as redis-py finds out whether a connection is in step
        )

    def is_used_up(self) -> bool:
        """Whether the pool has to look after this connection: it is closed, or its server is about to move."""
        should_reconnect = getattr(self, "should_reconnect", None)  # redis-py 6.4 and later
        return not self.is_connected or (should_reconnect is not None and should_reconnect())

    async def ask(self, command: tuple[Any, ...]) -> Any:
        """Send a command and read its answer, in at most ``socket_timeout``. Only if `is_ready`.

        Raises:
            redis.exceptions.RedisError: As redis-py does. The connection is closed if the answer may still come.
        """
        pieces = self.pack_command(*command)
        reader, writer = self._reader, self._writer
        if sum(map(len, pieces)) > _BUFFERED_BYTES or reader is None or writer is None:
            await self.send_packed_command(pieces, check_health=False)
            return await self.read_response()
        loop, parser = asyncio.get_running_loop(), cast("Any", self._parser)
        self._asked_at = loop.time()
        if self._watch is None and self.socket_timeout is not None:
            self._watch = loop.call_at(self._asked_at + self.socket_timeout, self._look)
        try:
            writer.write(pieces[0] if len(pieces) == 1 else b"".join(pieces))
            reply = await parser.read_response()
        except TimeoutError:
            await self.disconnect(nowait=True)
            raise redis.exceptions.TimeoutError(f"Timeout reading from {self._host_error()}") from None
        except OSError as error:
            await self.disconnect(nowait=True)
            text = f"Error while reading from {self._host_error()} : {error.args}"
            raise redis.exceptions.ConnectionError(text) from error
        except redis.exceptions.ResponseError:
            raise
        except BaseException:
            await self.disconnect(nowait=True)
            raise
        finally:
            self._asked_at = None
        if isinstance(reply, redis.exceptions.ResponseError):
            raise reply
        return reply

    def _look(self) -> None:
        """End the wait for an answer that takes too long. One timer for many calls: each would cost as much as two."""
        self._watch = None
        if self._asked_at is None or self.socket_timeout is None:
            return
        loop = asyncio.get_running_loop()
        until = self._asked_at + self.socket_timeout
        if until > loop.time():
            self._watch = loop.call_at(until, self._look)
        elif self._reader is not None:
            self._reader.set_exception(TimeoutError())

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
        """As redis-py does, without a task for a write that does not wait."""
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


class _Tcp(PromptConnection, Connection):
    pass


class _Tls(PromptConnection, SSLConnection):
    pass


class _Unix(PromptConnection, UnixDomainSocketConnection):
    pass


_PROMPT: Final[dict[type[Any], type[Any]]] = {Connection: _Tcp, SSLConnection: _Tls, UnixDomainSocketConnection: _Unix}


def prompt(connection_class: type[Any]) -> type[Any]:
    """The connection that writes without a task, in place of one of redis-py's; any other class as it is."""
    return _PROMPT.get(connection_class, connection_class)
