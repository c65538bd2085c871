"""One test that starts each kind of program of this suite, and waits for its own end.

`test_run_watcher` runs it in a pytest of its own, and kills that pytest.
"""

import multiprocessing
import os
import shutil
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mageflow.testing import running_worker
from tests.architecture.test_page_commands import Stage
from tests.cli.top.terminal import open_terminal
from tests.started_program import StartedProgram
from tests.store.topologies import ServerProcess, valkey_binary

READY = "KILLED_RUN_READY"
"""The variable with the file that says that everything runs."""

ENGINE = "mageflow engine --grpc-port 0 --api-port 0 --redis-port 0"
WORKER = Path(__file__).with_name("greeting_worker.py")


def test_which_is_killed(mageflow_engine: Any, mageflow_worker: Any, tmp_path: Path) -> None:
    """A command behind a shell, one in a session of its own, one in a terminal, workers, a server, a forked child."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": programs, "XDG_STATE_HOME": str(tmp_path), "MAGEFLOW_METRICS_PORT": "0"}
    stage = Stage(tmp_path, environment, {}, forking=[])  # what is killed is made of real interpreters
    shell = ["bash", "-c", f"{ENGINE}; echo ended"]
    with ExitStack() as stack:
        behind_shell = stack.enter_context(StartedProgram(shell, env=environment))
        stage.start(f"{ENGINE} --name second", "MAGEFLOW_REDIS_URL")
        assert "HATCHET" in behind_shell.line()
        if shutil.which("tmux") is not None:
            terminal = stack.enter_context(open_terminal([*f"{ENGINE} --name third".split()], environment))
            terminal.wait_for(lambda screen: "The engine is ready" in screen, 120)
        stack.enter_context(ServerProcess(valkey_binary()))
        mageflow_worker(WORKER)
        hatchet = mageflow_engine.client()
        greet = hatchet.task(name="greet-inside")(lambda _message, _context: None)
        stack.enter_context(running_worker(mageflow_engine, hatchet, "inside", workflows=[greet]))
        multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,)).start()
        Path(os.environ[READY]).touch()
        time.sleep(600)
