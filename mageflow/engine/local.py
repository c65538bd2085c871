"""Starts an engine as a subprocess, and says how to connect to it."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from mageflow.engine.settings import TOKEN_SECRET
from mageflow.engine.stderr import StderrReader
from mageflow.engine.tokens import Handshake
from mageflow.errors import EngineError, EngineNotRunningError, EngineStartError
from mageflow.forks import when_forked

if TYPE_CHECKING:
    from hatchet_sdk import Hatchet

_POLL_SECONDS = 0.02
_STOP_SECONDS = 5.0


class LocalEngine:
    """A local engine in its own process, for one ``with`` or ``async with`` block at a time.

    Entering the block starts the process and waits until it is ready, usually less than half a second. The process
    listens on 127.0.0.1 only and keeps everything in memory. It ends when the block ends or when this process ends.
    Workers must be restarted together with the engine.

    ::

        with LocalEngine() as engine:
            hatchet = engine.client()

    Args:
        speed: factor greater than 0 by which the engine's own waits are shortened: sleep conditions, durable sleeps,
            retry backoff, crons, scheduled runs. With 60, a minute of them passes in a second. Timeouts do not change.
        worker_lost_after: seconds without a heartbeat after which a worker's tasks are requeued.
        keep_finished: finished runs that stay readable. The oldest beyond that are forgotten, so memory stays flat.
        grpc_port: port of gRPC, 0 to 65535; 0 takes a free one.
        api_port: port of the REST API, 0 to 65535; 0 takes a free one.
        log_level: ``debug``, ``info``, ``warning`` or ``error``. The engine's log records appear in the log of this
            process, under the loggers ``mageflow.engine`` and below.
        token_secret: the part of the token that cannot be guessed, of letters, digits, ``-`` and ``_``. With the same
            secret and ports the token is the same at each start. None makes a new one.
        start_timeout: seconds to wait until the engine is ready. It takes one or two, on a machine that is busy with a
            test suite many times that.

    Raises:
        EngineStartError: on entering the block, when the process ends or is not ready in time.
        EngineError: on entering the block, when this engine runs already.
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
        token_secret: str | None = None,
        start_timeout: float = 60.0,
    ) -> None:
        self._flags = {
            "speed": speed,
            "worker-lost-after": worker_lost_after,
            "keep-finished": keep_finished,
            "grpc-port": grpc_port,
            "api-port": api_port,
            "log-level": log_level,
        }
        self._secret = {TOKEN_SECRET: token_secret} if token_secret else {}
        self._start_timeout = start_timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self._handshake: Handshake | None = None
        self._output: StderrReader | None = None

    @property
    def handshake(self) -> Handshake:
        """Addresses and token of the running engine.

        Raises:
            EngineNotRunningError: outside the ``with`` block.
        """
        if self._handshake is None:
            raise EngineNotRunningError
        return self._handshake

    @property
    def pid(self) -> int:
        """Process id of the running engine.

        Raises:
            EngineNotRunningError: outside the ``with`` block.
        """
        if self._process is None:
            raise EngineNotRunningError
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Exit code of an engine that ended by itself. None while it runs, and outside the ``with`` block."""
        return None if self._process is None else self._process.poll()

    def environment(self) -> dict[str, str]:
        """Return the environment variables with which the SDK in another process finds this engine.

        ``Hatchet()`` reads the token, ``Hatchet.from_embedded()`` the handshake. The token contains both addresses.
        They are also set as variables of their own, because the SDK prefers such variables, which may be set for
        another Hatchet.

        Returns:
            Values by name: ``HATCHET_CLIENT_TOKEN``, ``HATCHET_CLIENT_TLS_STRATEGY``, ``HATCHET_CLIENT_HOST_PORT``,
            ``HATCHET_CLIENT_SERVER_URL`` and ``HATCHET_EMBEDDED_HANDSHAKE``.

        Raises:
            EngineNotRunningError: outside the ``with`` block.
        """
        return {
            "HATCHET_CLIENT_TOKEN": self.handshake.token,
            "HATCHET_CLIENT_TLS_STRATEGY": "none",
            "HATCHET_CLIENT_HOST_PORT": self.handshake.grpc_address,
            "HATCHET_CLIENT_SERVER_URL": self.handshake.api_url,
            "HATCHET_EMBEDDED_HANDSHAKE": self.handshake.to_json(),
        }

    def client(self, **options: Any) -> Hatchet:
        """Return an SDK client of this engine. The environment of this process is not changed.

        Args:
            options: fields of ``hatchet_sdk.ClientConfig``, for example ``namespace``. They replace the engine's own.

        Returns:
            A new ``hatchet_sdk.Hatchet``.

        Raises:
            EngineNotRunningError: outside the ``with`` block.
        """
        # The SDK takes seconds to import, so it is imported here.
        from hatchet_sdk import ClientConfig, ClientTLSConfig, Hatchet

        # The token has the addresses too. They are set here because a variable for a real Hatchet would replace them.
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
        try:
            while not self._is_ready(deadline):
                time.sleep(_POLL_SECONDS)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    async def __aenter__(self) -> Self:
        self._spawn()
        deadline = time.monotonic() + self._start_timeout
        try:
            while not self._is_ready(deadline):  # noqa: ASYNC110 - the other process sends no event
                await asyncio.sleep(_POLL_SECONDS)
        except BaseException:
            self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._stop)

    def _spawn(self) -> None:
        if self._process is not None:
            raise EngineError("this engine is already running: make another LocalEngine")
        self._folder = Path(tempfile.mkdtemp(prefix="mageflow-engine-"))
        command = [sys.executable, "-m", "mageflow.engine", "-handshake-file", str(self._handshake_file)]
        for name, value in self._flags.items():
            command += [f"-{name}", str(value)]
        # A session of its own: Ctrl-C in a terminal reaches only the user's process, which then ends the engine.
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter, no shell
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)} | self._secret,
            )
        except BaseException:
            self._stop()  # deletes the folder
            raise
        when_forked(self._leave_to_parent)
        if self._process.stderr is not None:
            self._output = StderrReader(self._process.stderr)

    def _is_ready(self, deadline: float) -> bool:
        """Return whether the engine is ready; stop it when it ended or the deadline has passed."""
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
        return self._folder / "handshake.json"

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
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _leave_to_parent(self) -> None:
        """In a forked child: the engine is not its own, and a copy of the pipe would keep it alive after the parent."""
        process, self._process, self._folder, self._output = self._process, None, None, None
        if process is not None and process.stdin is not None:
            process.stdin.close()
            process.returncode = 0  # so that its destructor asks for nothing
