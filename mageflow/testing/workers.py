"""Real workers for tests: a script in a process of its own, or a worker in a thread of this process.

This room owns starting, waiting until the engine may send work, and stopping without a trace. It refuses to know
what the tasks are.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, cast

from mageflow.errors import EngineError

if TYPE_CHECKING:
    from hatchet_sdk import Hatchet, Worker

__all__ = ["RunningWorker", "WorkerProcess", "running_worker"]

_START_SECONDS = 60.0
"""A worker takes two or three seconds; a machine that is busy with a whole test suite, many times that."""

_POLL_SECONDS = 0.05
_TAIL_LINES = 40


class _Handshake(Protocol):
    """The part of the engine's handshake that is needed to ask it for its workers."""

    @property
    def token(self) -> str: ...
    @property
    def tenant_id(self) -> str: ...
    @property
    def api_url(self) -> str: ...


class _Engine(Protocol):
    """What `mageflow.engine.LocalEngine` offers and this room uses."""

    @property
    def handshake(self) -> _Handshake: ...
    def environment(self) -> dict[str, str]: ...


def _active_workers(handshake: _Handshake) -> dict[str, str]:
    """Ids and names of the workers the engine would send work to now."""
    request = urllib.request.Request(  # noqa: S310 - the address of our own engine
        f"{handshake.api_url}/api/v1/tenants/{handshake.tenant_id}/worker",
        headers={"Authorization": f"Bearer {handshake.token}"},
    )
    with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - as above
        rows = cast("list[dict[str, Any]]", json.load(response)["rows"])
    return {row["metadata"]["id"]: row["name"] for row in rows if row.get("status") == "ACTIVE"}


class WorkerProcess:
    """A worker in a process (and process group) of its own, started from a script or a module.

    ``target`` is a path ending in ``.py`` or the name of a module; it is run as ``python target`` or
    ``python -m target`` with the engine's environment. What it prints goes to a file, so it can neither block on a
    full pipe nor be lost.

    Attributes:
        worker_id: The id Hatchet gave the worker; an empty string until it is registered.
        name: The name it registered under, with its namespace.
    """

    def __init__(
        self,
        engine: _Engine,
        target: str | Path,
        *arguments: str,
        output: Path,
        name: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._engine = engine
        self._output = output
        self._wanted_name = name
        self._environment = dict(environment or {})
        self._command = [sys.executable, *_target(target), *arguments]
        self._process: subprocess.Popen[bytes] | None = None
        self.worker_id = ""
        self.name = ""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process id.

        Raises:
            EngineError: The worker was not started.
        """
        if self._process is None:
            raise EngineError("the worker was not started")
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status; negative for a signal, None while the process runs."""
        return None if self._process is None else self._process.poll()

    def output(self) -> str:
        """What the process has written to stdout and stderr so far."""
        return self._output.read_text(errors="replace") if self._output.exists() else ""

    def start(self, timeout_seconds: float = _START_SECONDS) -> Self:
        """Start the process and wait until the engine would send it work. Blocks.

        Raises:
            EngineError: It exited, or did not register within ``timeout_seconds``; the end of its output is in
                the message.
        """
        before = set(_active_workers(self._engine.handshake))
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - the caller's own script
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._engine.environment(), "PYTHONUNBUFFERED": "1", **self._environment},
                start_new_session=True,
            )
        try:
            self._wait_until_registered(before, timeout_seconds)
        except BaseException:
            self.kill()
            raise
        return self

    async def aio_start(self, timeout_seconds: float = _START_SECONDS) -> Self:
        """Start the process and wait, without blocking the event loop, until the engine would send it work.

        Raises:
            EngineError: It exited, or did not register within ``timeout_seconds``; the message ends with its output.
        """
        return await asyncio.to_thread(self.start, timeout_seconds)

    def _wait_until_registered(self, before: set[str], timeout_seconds: float) -> None:
        deadline = time.monotonic() + timeout_seconds
        while True:
            if self.returncode is not None:
                raise EngineError(f"the worker exited with {self.returncode} before it registered:\n{self._tail()}")
            for worker_id, name in _active_workers(self._engine.handshake).items():
                if worker_id not in before and (self._wanted_name is None or name.endswith(self._wanted_name)):
                    self.worker_id, self.name = worker_id, name
                    return
            if time.monotonic() > deadline:
                raise EngineError(f"the worker did not register within {timeout_seconds} s:\n{self._tail()}")
            time.sleep(_POLL_SECONDS)

    def _tail(self) -> str:
        return "\n".join(self.output().splitlines()[-_TAIL_LINES:])

    def stop(self, timeout_seconds: float = 15.0) -> int:
        """Ask the worker to finish its tasks and exit; kill it when it has not within ``timeout_seconds``. Blocks.

        Returns:
            The exit status.
        """
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout_seconds)
        return self.kill()

    async def aio_stop(self, timeout_seconds: float = 15.0) -> int:
        """Let the worker finish its tasks and exit, without blocking the event loop. Kill it after ``timeout_seconds``.

        Returns:
            The exit status.
        """
        return await asyncio.to_thread(self.stop, timeout_seconds)

    def kill(self) -> int:
        """Kill the worker with everything it started (its SDK listener too), as a crash of the machine would.

        Returns:
            The exit status.
        """
        if self._process is None:
            return 0
        with suppress(ProcessLookupError):  # the whole group has ended
            os.killpg(self._process.pid, signal.SIGKILL)
        return self._process.wait()


def _target(target: str | Path) -> Sequence[str]:
    text = os.fspath(target)
    return [text] if text.endswith(".py") else ["-m", text]


class RunningWorker:
    """A worker that runs in a thread of this process.

    Attributes:
        worker: The SDK's worker.
        worker_id: The id Hatchet gave it.
    """

    def __init__(self, worker: "Worker", worker_id: str) -> None:
        self.worker = worker
        self.worker_id = worker_id


@contextmanager
def running_worker(
    engine: _Engine, client: "Hatchet", name: str, *, timeout_seconds: float = _START_SECONDS, **options: Any
) -> Generator[RunningWorker]:
    """Run ``client.worker(name, **options)`` in a thread of this process while the block runs.

    Its tasks see this process's objects, so a test can hand them events and read what they recorded. Call it in
    the main thread, with the event loop of a test or without: the SDK sets signal handlers when a worker is made,
    and they are put back at once. The SDK's listener is a process of its own, as always. Blocks while the worker
    starts (about two seconds) and stops.

    Raises:
        EngineError: The worker did not register within ``timeout_seconds``, or failed to start.
    """
    before = set(_active_workers(engine.handshake))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)}
    try:
        worker = client.worker(name, **options)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    thread = _WorkerThread(worker)
    thread.start()
    try:
        yield RunningWorker(worker, _wait_for_thread(engine, thread, name, before, timeout_seconds))
    finally:
        thread.stop()


def _wait_for_thread(
    engine: _Engine, thread: "_WorkerThread", name: str, before: set[str], timeout_seconds: float
) -> str:
    deadline = time.monotonic() + timeout_seconds
    while True:
        if not thread.is_alive():
            raise EngineError(f"the worker {name!r} did not start: {thread.failure!r}") from thread.failure
        for worker_id, registered in _active_workers(engine.handshake).items():
            if worker_id not in before and registered.endswith(name):
                return worker_id
        if time.monotonic() > deadline:
            raise EngineError(f"the worker {name!r} did not register within {timeout_seconds} s")
        time.sleep(_POLL_SECONDS)


class _WorkerThread(threading.Thread):
    def __init__(self, worker: "Worker") -> None:
        super().__init__(name=f"worker {worker.name}", daemon=True)
        self._worker = worker
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            self._worker.start()
        except SystemExit as ended:  # how the SDK's worker ends: with 0 when it was asked to
            self.failure = ended if ended.code else None
        except BaseException as failure:  # noqa: BLE001 - handed to the thread that waits
            self.failure = failure
        finally:
            loop = self._loop()
            if loop is not None and not loop.is_closed():
                _close(loop)

    def _loop(self) -> asyncio.AbstractEventLoop | None:
        # Public, though on its way out with 2.0: the one place the loop of a worker can be had from.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return self._worker.loop

    def stop(self) -> None:
        loop = self._loop()
        if self.is_alive() and loop is not None:
            asyncio.run_coroutine_threadsafe(self._worker.exit_gracefully(), loop)
        self.join(timeout=30)
        if self.is_alive():
            raise EngineError(f"the worker {self._worker.name!r} did not stop within 30 s")


def _close(loop: asyncio.AbstractEventLoop) -> None:
    leftover = asyncio.all_tasks(loop)
    for task in leftover:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*leftover, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
