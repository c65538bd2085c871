"""Start an engine from Python, as a subprocess, and find out how to reach it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from mageflow.engine.output import ErrorOutput
from mageflow.engine.tokens import Handshake
from mageflow.errors import EngineError, EngineNotRunningError, EngineStartError

if TYPE_CHECKING:
    from hatchet_sdk import Hatchet

_POLL_SECONDS = 0.02
_STOP_SECONDS = 5.0


class LocalEngine:
    """A local engine in its own process, for a ``with`` or ``async with`` block.

    The process listens on 127.0.0.1 only, keeps everything in memory, and ends with the block or with this process,
    whichever ends first. Workers must be restarted together with the engine.

    Args:
        speed: factor by which waits made by the engine are shortened: sleep conditions, durable sleeps, retry
            backoff, cron, scheduled runs. Timeouts are not.
        worker_lost_after: seconds without a heartbeat before a worker's tasks are reassigned.
        keep_finished: finished runs that stay readable; older ones are forgotten, so memory stays flat.
        grpc_port: 0 picks a free one.
        api_port: 0 picks a free one.
        log_level: of the engine's log, which comes into this process's own under the loggers ``mageflow.engine``.
        start_timeout: seconds to wait until it is ready.

    Raises:
        EngineStartError: on entering the block, when the process does not come up.
    """

    def __init__(
        self,
        *,
        speed: float = 1.0,
        worker_lost_after: float = 30.0,
        keep_finished: int = 10_000,
        grpc_port: int = 0,
        api_port: int = 0,
        log_level: str = "warning",
        start_timeout: float = 15.0,
    ) -> None:
        self._flags = {
            "speed": speed,
            "worker-lost-after": worker_lost_after,
            "keep-finished": keep_finished,
            "grpc-port": grpc_port,
            "api-port": api_port,
            "log-level": log_level,
        }
        self._start_timeout = start_timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._handshake: Handshake | None = None
        self._output: ErrorOutput | None = None

    @property
    def handshake(self) -> Handshake:
        """How to reach the running engine.

        Raises:
            EngineNotRunningError: outside the ``with`` block.
        """
        if self._handshake is None:
            raise EngineNotRunningError
        return self._handshake

    @property
    def pid(self) -> int:
        """Process id of the running engine."""
        if self._process is None:
            raise EngineNotRunningError
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Exit code of the engine when it ended by itself; None while it runs and outside the ``with`` block."""
        return None if self._process is None else self._process.poll()

    def environment(self) -> dict[str, str]:
        """Return the variables with which an unmodified SDK in another process finds this engine.

        ``Hatchet()`` reads the token, ``Hatchet.from_embedded()`` the handshake. The token names both addresses; they
        are given beside it as well, because the SDK prefers those that may still be set for another Hatchet.
        """
        return {
            "HATCHET_CLIENT_TOKEN": self.handshake.token,
            "HATCHET_CLIENT_TLS_STRATEGY": "none",
            "HATCHET_CLIENT_HOST_PORT": self.handshake.grpc_address,
            "HATCHET_CLIENT_SERVER_URL": self.handshake.api_url,
            "HATCHET_EMBEDDED_HANDSHAKE": self.handshake.to_json(),
        }

    def client(self, **options: Any) -> Hatchet:
        """Return an SDK client of this engine; options are those of ``ClientConfig``. Changes no environment."""
        # The SDK takes seconds to import: only for those who ask.
        from hatchet_sdk import ClientConfig, ClientTLSConfig, Hatchet

        # Addresses are in the token as well; given here, no variable set for a real Hatchet can lead elsewhere.
        settings: dict[str, Any] = {
            "token": self.handshake.token,
            "host_port": self.handshake.grpc_address,
            "server_url": self.handshake.api_url,
            "tls_config": ClientTLSConfig(strategy="none"),
        }
        config = ClientConfig(**{**settings, **options})
        return Hatchet(config=config)

    def __enter__(self) -> Self:
        self._spawn()
        deadline = time.monotonic() + self._start_timeout
        while not self._look(deadline):
            time.sleep(_POLL_SECONDS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    async def __aenter__(self) -> Self:
        self._spawn()
        deadline = time.monotonic() + self._start_timeout
        while not self._look(deadline):  # noqa: ASYNC110 - another process gets ready, there is no event to await
            await asyncio.sleep(_POLL_SECONDS)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._stop)

    def _spawn(self) -> None:
        if self._process is not None:
            raise EngineError("this engine is already running: make another LocalEngine")
        self._folder = tempfile.TemporaryDirectory(prefix="mageflow-engine-")
        command = [sys.executable, "-m", "mageflow.engine", "-handshake-file", str(self._handshake_file)]
        for name, value in self._flags.items():
            command += [f"-{name}", str(value)]
        # Own session: Ctrl-C in a terminal reaches the user's process first, which then ends the engine.
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter, no shell
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        if self._process.stderr is not None:
            self._output = ErrorOutput(self._process.stderr)

    def _look(self, deadline: float) -> bool:
        """Return whether the engine is ready."""
        process = self._process
        if process is None:
            raise EngineNotRunningError
        if self._handshake_file.exists():
            self._handshake = Handshake.from_json(self._handshake_file.read_text())
            if self._output is not None:
                self._output.log()
            return True
        exit_code = process.poll()
        if exit_code is not None or time.monotonic() > deadline:
            output = self._output
            self._stop()
            raise EngineStartError(exit_code, "" if output is None else output.text())
        return False

    @property
    def _handshake_file(self) -> Path:
        if self._folder is None:
            raise EngineNotRunningError
        return Path(self._folder.name, "handshake.json")

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            if process.stdin is not None:
                process.stdin.close()
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._output is not None:
            self._output.close()
            self._output = None
        self._handshake = None
        if self._folder is not None:
            with contextlib.suppress(OSError):
                self._folder.cleanup()
            self._folder = None
