"""Workers for tests: a script in a process of its own, or a worker in a thread of this process.

This module starts a worker, waits until the engine has registered it, and stops it with all its processes.
"""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from mageflow.errors import EngineError
from mageflow.testing.child_process import ChildProcess
from mageflow.testing.engine_api import Engine, Handshake, rows_of
from mageflow.testing.listener_process import forked_listeners

if TYPE_CHECKING:
    from hatchet_sdk import Hatchet, Worker

__all__ = ["RunningWorker", "WorkerProcess", "running_worker"]

_START_SECONDS = 60.0
"""A worker starts in two or three seconds, on a machine that is busy with a test suite in many times that."""

_POLL_SECONDS = 0.05
_TAIL_LINES = 40


def _active_workers(handshake: Handshake) -> dict[str, str]:
    """Ids and names of the workers that the engine has registered and can send work to."""
    rows = rows_of(handshake, "/api/v1/tenants/{tenant}/worker")
    return {row["metadata"]["id"]: row["name"] for row in rows if row.get("status") == "ACTIVE"}


class WorkerProcess:
    """A worker in a process and process group of its own, for a ``with`` block.

    The block starts the process and waits until the engine has registered its worker; the end of the block stops it.
    Without a block, call `start` and `stop`, or `aio_start` and `aio_stop`. The output goes to a file, so that the
    process never blocks on a full pipe.

    Args:
        engine: The engine that the worker connects to.
        target: A path that ends in ``.py``, run as ``python TARGET``, or the name of a module, run as
            ``python -m TARGET``, with this Python.
        arguments: Command line arguments.
        output: The file for stdout and stderr. It is appended to.
        name: The end of the worker's name, for a script that registers more than one worker. None takes the first
            worker that appears.
        environment: Variables on top of those of this process and of ``engine.environment()``.

    Attributes:
        worker_id: Hatchet's id of the worker. Empty until it is registered.
        name: The name of the worker, with its namespace. Empty until it is registered.
    """

    def __init__(
        self,
        engine: Engine,
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
        self._process: ChildProcess | None = None
        self.worker_id = ""
        self.name = ""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process id, also after the process has ended.

        Raises:
            EngineError: The worker was never started.
        """
        if self._process is None:
            raise EngineError("the worker was not started")
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status. Negative for a signal; None if the process runs or was never started."""
        return None if self._process is None else self._process.poll()

    def output(self) -> str:
        """The output so far, stdout and stderr together. Bytes that are not UTF-8 are replaced."""
        return self._output.read_text(errors="replace") if self._output.exists() else ""

    def start(self, timeout_seconds: float = _START_SECONDS) -> Self:
        """Start the process and wait until the engine has registered its worker. Blocks for two or three seconds.

        While the process runs, a second call does nothing.

        Args:
            timeout_seconds: The longest time to wait. After it the process is killed.

        Returns:
            This object.

        Raises:
            EngineError: The process exited, or its worker was not registered in time. The message has the end of the
                output.
        """
        if self._process is not None and self.returncode is None:
            return self
        before = set(_active_workers(self._engine.handshake))
        with self._output.open("ab") as output:
            self._process = ChildProcess(
                self._command,
                output=output,
                environment={
                    **os.environ,
                    **self._engine.environment(),
                    "PYTHONUNBUFFERED": "1",
                    **self._environment,
                },
            )
        try:
            self._wait_until_registered(before, timeout_seconds)
        except BaseException:
            self.kill()
            raise
        return self

    async def aio_start(self, timeout_seconds: float = _START_SECONDS) -> Self:
        """Start the process and wait until the engine has registered its worker, without blocking the event loop.

        Args:
            timeout_seconds: The longest time to wait. After it the process is killed.

        Returns:
            This object.

        Raises:
            EngineError: The process exited, or its worker was not registered in time. The message has the end of the
                output.
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
        """Send SIGTERM, on which the worker finishes its tasks and exits, and wait for the end. Blocks.

        Args:
            timeout_seconds: The longest time to wait. After it, and for processes that are left, `kill`.

        Returns:
            The exit status. 0 also for a worker that was never started.
        """
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout_seconds)
        return self.kill()

    async def aio_stop(self, timeout_seconds: float = 15.0) -> int:
        """Send SIGTERM and wait for the end, without blocking the event loop.

        Args:
            timeout_seconds: The longest time to wait. After it, and for processes that are left, `kill`.

        Returns:
            The exit status. 0 also for a worker that was never started.
        """
        return await asyncio.to_thread(self.stop, timeout_seconds)

    def kill(self) -> int:
        """Send SIGKILL to the whole process group, the SDK's listener process included, as a crashed machine ends.

        Returns:
            The exit status. 0 also for a worker that was never started.
        """
        if self._process is None:
            return 0
        return self._process.kill()


def _target(target: str | Path) -> Sequence[str]:
    text = os.fspath(target)
    return [text] if text.endswith(".py") else ["-m", text]


class RunningWorker:
    """A worker that runs in a thread of this process. `running_worker` makes one.

    Attributes:
        worker: The worker of the SDK.
        worker_id: Hatchet's id of the worker.
    """

    def __init__(self, worker: "Worker", worker_id: str) -> None:
        self.worker = worker
        self.worker_id = worker_id


@contextmanager
def running_worker(
    engine: Engine, client: "Hatchet", name: str, *, timeout_seconds: float = _START_SECONDS, **options: Any
) -> Generator[RunningWorker]:
    """Run ``client.worker(name, **options)`` in a thread of this process for the length of the block.

    Its tasks share the objects of this process, so a test can read what they recorded. Call it in the main thread: the
    SDK sets signal handlers when it makes a worker, and here they are restored at once. An event loop may run. The
    SDK's listener is a process of its own, forked from a server that has imported the SDK. The first start blocks for
    about two seconds, each later one for some tenths, the end until all tasks have ended, for at most 30 s.

    Args:
        engine: The engine that the client is connected to.
        client: A `hatchet_sdk.Hatchet` or a `mageflow.Mageflow`.
        name: The name of the worker, without its namespace.
        timeout_seconds: The longest time to wait until the engine has registered the worker.
        options: Arguments of ``client.worker``, such as ``workflows`` and ``slots``.

    Yields:
        The worker and its id.

    Raises:
        EngineError: The worker did not start, was not registered in time, or did not stop within 30 s.
    """
    before = set(_active_workers(engine.handshake))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)}
    try:
        with forked_listeners():
            worker = client.worker(name, **options)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if "owned_loop" in vars(worker):
        # Before 1.31 a worker that is made where a loop runs does not stop its own.
        vars(worker)["owned_loop"] = True
    thread = _WorkerThread(worker)
    thread.start()
    try:
        yield RunningWorker(worker, _wait_for_thread(engine, thread, name, before, timeout_seconds))
    finally:
        thread.stop()


def _wait_for_thread(
    engine: Engine, thread: "_WorkerThread", name: str, before: set[str], timeout_seconds: float
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
        except SystemExit as ended:  # the SDK's worker ends with it: with 0 after exit_gracefully
            self.failure = ended if ended.code else None
        except BaseException as failure:  # noqa: BLE001 - raised in the thread that waits
            self.failure = failure
        finally:
            loop = self._loop()
            if loop is not None and not loop.is_closed():
                _close(loop)

    def _loop(self) -> asyncio.AbstractEventLoop | None:
        # Public and deprecated (it goes with 2.0): there is no other way to the loop of a worker.
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
