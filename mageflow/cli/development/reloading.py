"""The worker of `mageflow dev`: a process that is started again when a source file changes."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final

from mageflow.cli.development.log_view import LogView
from mageflow.cli.interrupts import StopRequest
from mageflow.testing.child_process import ChildProcess

__all__ = ["ReloadedWorker", "run_until_stopped"]

_WATCH_MILLISECONDS: Final = 300
_GRACE_SECONDS: Final = 10.0
_READ_SECONDS: Final = 5.0
_SHOWN_FILES: Final = 3
_POLL_SECONDS: Final = 0.1
_RESULTS_SECONDS: Final = 1.0
"""For the results of the last tasks, which the SDK's listener still sends."""
_TASKS_ENDED: Final = b'"mageflow.worker.stopping"'
"""The event after the last task, the lifespan and mageflow's own work have ended."""


class ReloadedWorker:
    """Runs ``mageflow worker`` and prints its log.

    Args:
        arguments: The arguments of ``mageflow worker``.
        variables: What leads the worker to engine and Redis.
        view: Prints the log.
    """

    def __init__(self, arguments: Sequence[str], variables: Mapping[str, str], view: LogView) -> None:
        self._command = [sys.executable, "-m", "mageflow", "worker", *arguments, "--logs", "json"]
        # On one's own machine an error shows its text and its place. A shell that says otherwise wins.
        self._environment = {"MAGEFLOW_EXCEPTION_DETAIL": "full", **os.environ, **variables, "PYTHONUNBUFFERED": "1"}
        self._view = view
        self._process: ChildProcess | None = None
        self._reader: threading.Thread | None = None
        self._tasks_ended = threading.Event()

    def start(self) -> None:
        """Start the process."""
        self._tasks_ended.clear()
        read, write = os.pipe()
        with os.fdopen(write, "wb") as output:
            self._process = ChildProcess(self._command, output=output, environment=self._environment)
        self._reader = threading.Thread(target=self._read, args=(os.fdopen(read, "rb"),), name="mageflow-dev-log")
        self._reader.start()

    def report_end(self) -> None:
        """Print that the worker has ended by itself, once."""
        status = None if self._process is None else self._process.poll()
        if status is not None:
            self._finish()
            self._view.note(f"The worker ended with status {status}. It starts again when a file changes.", "bold red")

    def stop(self) -> None:
        """Stop the process: it may finish its tasks for 10 s."""
        process = self._process
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        if not self._ends_within(process, _GRACE_SECONDS):
            self._view.note("Tasks are still running after 10 s: the worker is killed.", "bold yellow")
        process.kill()
        self._finish()

    def _ends_within(self, process: ChildProcess, seconds: float) -> bool:
        """Wait for the end of the process, or of its tasks and a moment more: the SDK's listener takes 6 s to end."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                process.wait(_POLL_SECONDS)
                return True
            except subprocess.TimeoutExpired:
                if self._tasks_ended.is_set():
                    time.sleep(_RESULTS_SECONDS)
                    return True
        return False

    def _finish(self) -> None:
        self._process = None
        if self._reader is not None:
            self._reader.join(_READ_SECONDS)
            self._reader = None

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                if _TASKS_ENDED in line:
                    self._tasks_ended.set()
                self._view.line(line.decode("utf-8", "replace").rstrip("\r\n"))


def run_until_stopped(worker: ReloadedWorker, directory: Path, view: LogView, stopped: StopRequest) -> None:
    """Run the worker until the end is asked for; start it again when a Python file below the directory changes.

    Args:
        worker: The worker, not started.
        directory: What is watched. Virtual environments, caches and hidden directories are left out.
        view: Prints why the worker starts again.
        stopped: Ends the run.
    """
    import watchfiles

    worker.start()
    try:
        for changes in watchfiles.watch(
            directory,
            watch_filter=watchfiles.PythonFilter(),
            stop_event=stopped,
            rust_timeout=_WATCH_MILLISECONDS,
            yield_on_timeout=True,
            raise_interrupt=False,
        ):
            if stopped.is_set():
                break
            if changes:
                files = sorted({os.path.relpath(path, directory) for _, path in changes})
                more = f" and {len(files) - _SHOWN_FILES} more" if len(files) > _SHOWN_FILES else ""
                view.note(f"{', '.join(files[:_SHOWN_FILES])}{more} changed: the worker starts again.")
                worker.stop()
                worker.start()
            else:
                worker.report_end()
    finally:
        worker.stop()
