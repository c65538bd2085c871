"""Ends what a test run has started when the run is gone, however it ended: also by SIGKILL, and behind a shell.

A test starts programs in sessions of their own, through shells and in terminals. No signal finds them all, so each run
puts its id into the environment, which every program that it starts inherits. A second process, the watcher, waits for
the end of the run and kills each process with this id.

``python -I run_watcher.py ID`` is the watcher. The run holds the other end of its standard input, which the operating
system closes when the run ends. A forked child has the environment of the start of the run, without the id, so it
writes its process id there instead. Programs that mageflow itself ends with their parent have ended before:
the watcher waits for them first.
"""

import contextlib
import os
import subprocess
import sys
import time
import uuid
from typing import Final

import psutil

__all__ = ["RUN_IDS", "processes_of_run", "watch_this_run"]

RUN_IDS: Final = "TEST_RUN_IDS"
"""The variable with the ids of this run and of the runs that have started it."""

PATIENCE_SECONDS: Final = 8.0
"""The longest that a supervisor lets a program finish, and some seconds more."""

_ROUNDS: Final = 5


def watch_this_run() -> str:
    """Give this run an id, and start its watcher. Returns the id."""
    run_id = uuid.uuid4().hex
    os.environ[RUN_IDS] = f"{os.environ.get(RUN_IDS, '')} {run_id}".strip()
    before = {name: value for name, value in os.environ.items() if name != RUN_IDS}
    watcher = subprocess.Popen(
        [sys.executable, "-I", __file__, run_id],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=before,  # it must not find itself
    )
    assert watcher.stdin is not None
    pipe = watcher.stdin

    def report_fork() -> None:
        with pipe, contextlib.suppress(OSError):  # an open pipe would keep the watcher waiting for the end of the child
            pipe.write(b"%d\n" % os.getpid())

    os.register_at_fork(after_in_child=report_fork)
    _watchers.append(watcher)
    return run_id


_watchers: list["subprocess.Popen[bytes]"] = []
"""Referenced up to the end of the process, which closes their pipes."""


def processes_of_run(run_id: str) -> list[psutil.Process]:
    """The processes that run and have this id in their environment, or are below one that has."""
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and run_id in process.environ().get(RUN_IDS, "").split():
                for each in (process, *process.children(recursive=True)):
                    if each.status() != psutil.STATUS_ZOMBIE:
                        found[each.pid] = each
    return list(found.values())


def _watch(run_id: str) -> None:
    forked: list[psutil.Process] = []
    for line in sys.stdin:
        with contextlib.suppress(psutil.Error):
            forked.append(psutil.Process(int(line)))
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (left := _running(forked, run_id)) and time.monotonic() < deadline:
        time.sleep(0.5)
    for _ in range(_ROUNDS):  # one of them may just have started another
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        time.sleep(0.1)
        left = _running(forked, run_id)


def _running(forked: list[psutil.Process], run_id: str) -> list[psutil.Process]:
    return [*(each for each in forked if each.is_running()), *processes_of_run(run_id)]


if __name__ == "__main__":
    _watch(sys.argv[1])
