"""A test run that is killed leaves no program behind."""

import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.run_watcher import RUN_IDS, processes_of_run
from tests.started_program import StartedProgram


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_killed_run_leaves_nothing_behind(root: Path, tmp_path: Path) -> None:
    """SIGKILL, in the middle of every kind of program that the suite starts."""
    ready = tmp_path / "ready"
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    run_id = os.urandom(8).hex()
    environment = {**os.environ, "KILLED_RUN_READY": str(ready), RUN_IDS: f"{os.environ[RUN_IDS]} {run_id}"}
    with StartedProgram([*command, "tests/testing/killed_run.py"], cwd=root, env=environment, merged=True) as run:
        deadline = time.monotonic() + 240
        while not ready.exists() and time.monotonic() < deadline and run.process.poll() is None:
            time.sleep(0.2)
        assert ready.exists(), run.ended(1).output
        started = processes_of_run(run_id)
        assert len(started) > 10
        run.send_signal(signal.SIGKILL)
        run.process.wait(60)
        # Not by the id again: a server may clear its environment, and its parents are gone.
        left = [each for each in psutil.wait_procs(started, timeout=60)[1] if each.status() != psutil.STATUS_ZOMBIE]

    assert [each.cmdline() for each in left] == []
