"""``mageflow worker``: it finds the client of a module, checks what a worker needs, and runs it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mageflow.cli.program import load_client
from mageflow.distribution import installs
from mageflow.errors import ConfigurationError
from mageflow.testing import WorkerProcess
from tests.started_program import StartedProgram

PROGRAM = """
from hatchet_sdk import Hatchet
from mageflow import Mageflow

client = Mageflow(Hatchet())


@client.task(name="served-by-command")
async def served(message: dict) -> dict:
    return {"seen": message["value"]}


if __name__ == "__main__":
    raise SystemExit("the main block is not run")
"""


def mageflow_worker_command(directory: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a directory, with these variables alone beside the ordinary ones."""
    ordinary = {name: value for name, value in os.environ.items() if not name.startswith(("HATCHET_", "MAGEFLOW_"))}
    return subprocess.run(
        [sys.executable, "-m", "mageflow", "worker", *arguments],
        cwd=directory,
        env={**ordinary, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )


async def test_the_worker_of_a_module_runs_its_tasks(tmp_path, mageflow_engine, task_of):
    """The module needs no line that starts a worker."""
    (tmp_path / "shop_tasks.py").write_text(PROGRAM)
    worker = WorkerProcess(
        mageflow_engine,
        "mageflow",
        *("worker", str(tmp_path / "shop_tasks.py"), "--name", "by-command", "--slots", "3"),
        output=tmp_path / "log",
        environment={"MAGEFLOW_METRICS_PORT": "0"},
    )
    with worker:
        assert worker.name == "by-command"
        result = await task_of(PROGRAM).aio_run({"value": 5})
        [row] = [row for row in mageflow_engine.client().workers.list().rows if row.metadata.id == worker.worker_id]

    assert result == {"seen": 5}
    assert row.slot_config["default"].limit == 3
    assert '"mageflow.task.finished"' in worker.output()
    assert worker.returncode == 0


@pytest.fixture
def task_of(mageflow_engine) -> Any:
    """The task of a program, to be triggered from here."""

    def declare(program: str) -> Any:
        space: dict[str, Any] = {"__name__": "program"}
        exec(program, space)  # noqa: S102 - the text above
        return space["served"]

    return declare


@pytest.mark.parametrize(
    ("text", "target", "expected"),
    [
        (None, "absent_module", "there is no module 'absent_module' in {directory}"),
        (None, "absent.py", "there is no file absent.py"),
        ("x = 1\ny = {}['z']\n", "broken", "broken.py line 2: KeyError: 'z'"),
        ("def f(:\n", "broken", "broken.py line 1: invalid syntax"),
        (
            "import sys\nsys.exit(3)\n",
            "broken",
            "broken.py line 2: SystemExit: 3. The module ends the program",
        ),
        ("import nothing_of_this_name\n", "broken", "broken.py line 1: ModuleNotFoundError: No module named"),
        ("x = 1\n", "broken", "broken has no client: write client = Mageflow(Hatchet())"),
        (PROGRAM, "broken:cleint", "broken has no Mageflow client 'cleint'; did you mean 'client'?"),
        (PROGRAM + "\nother = Mageflow(Hatchet())\n", "broken", "broken has several clients: choose one of"),
    ],
)
def test_a_mistake_in_the_module_is_one_sentence(text, target, expected, tmp_path, mageflow_engine, monkeypatch):
    """The sentence names file and line of the user's own code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    if text is not None:
        (tmp_path / "broken.py").write_text(text)
    with pytest.raises(ConfigurationError) as raised:
        load_client(target)

    assert str(raised.value).startswith(expected.format(directory=tmp_path))
    assert "\n" not in str(raised.value)


def test_a_broken_module_is_one_line_of_output(tmp_path, mageflow_engine):
    """No traceback, and status 2."""
    (tmp_path / "broken.py").write_text("x = 1\ny = {}['z']\n")
    run = mageflow_worker_command(tmp_path, "broken", **mageflow_engine.environment())

    assert (run.returncode, run.stdout, run.stderr) == (2, "", "mageflow: broken.py line 2: KeyError: 'z'\n")


def test_a_missing_token_names_both_ways_out(tmp_path):
    """The 30 lines of the SDK's validation become one."""
    (tmp_path / "program.py").write_text(PROGRAM)
    run = mageflow_worker_command(tmp_path, "program")

    assert run.returncode == 2
    assert run.stderr.startswith("mageflow: there is no token of Hatchet: set HATCHET_CLIENT_TOKEN.")
    assert "`mageflow dev MODULE`" in run.stderr
    assert run.stderr.count("\n") == 1


def test_every_trouble_is_a_sentence_of_its_own(tmp_path, mageflow_engine):
    """Hatchet away, Redis away, a name that is given twice: three lines, and status 1."""
    twice = "\n\n@client.task(name='served-by-command')\nasync def again(message: dict) -> dict:\n    return {}\n"
    (tmp_path / "program.py").write_text(PROGRAM.replace("\n\nif __name__", f"{twice}\n\nif __name__"))
    run = mageflow_worker_command(
        tmp_path,
        "program",
        **{
            **mageflow_engine.environment(),
            "HATCHET_CLIENT_HOST_PORT": "127.0.0.1:1",
            "MAGEFLOW_REDIS_URL": "redis://127.0.0.1:1/0",
        },
    )

    lines = run.stderr.splitlines()
    assert run.returncode == 1
    assert len(lines) == 3, run.stderr
    assert lines[0].startswith("mageflow: two tasks are named 'served-by-command'")
    assert lines[1].startswith("mageflow: Hatchet does not answer at 127.0.0.1:1 (")
    assert "`mageflow engine --redis`" in lines[1]
    assert "Redis could not be reached" in lines[2]


def test_a_wrong_token_is_found_before_the_start(tmp_path, mageflow_engine):
    """Hatchet answers 403: the sentence names the variable."""
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = mageflow_engine.environment()
    head = environment["HATCHET_CLIENT_TOKEN"].rpartition(".")[0]
    run = mageflow_worker_command(tmp_path, "program", **{**environment, "HATCHET_CLIENT_TOKEN": f"{head}.wrong"})

    assert run.returncode == 1
    assert "refuses the token (403): set HATCHET_CLIENT_TOKEN" in run.stderr
    assert run.stderr.count("\n") == 1


def test_check_starts_nothing(tmp_path, mageflow_engine, mageflow_redis):
    """``--check`` is for a pipeline: status 0, and no worker is registered."""
    (tmp_path / "program.py").write_text(PROGRAM)
    before = len(mageflow_engine.client().workers.list().rows)
    run = mageflow_worker_command(
        tmp_path, "program", "--check", **mageflow_engine.environment(), MAGEFLOW_REDIS_URL=mageflow_redis.url
    )

    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == "program can run: 1 task or workflow.\n"
    assert len(mageflow_engine.client().workers.list().rows) == before


@pytest.mark.slow
def test_dev_runs_everything_and_reloads(tmp_path, monkeypatch):
    """Engine, Valkey and worker from one command; a change starts the worker again, with the change in it."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    (tmp_path / "run.py").write_text("from program import served\nprint(served.run({'value': 7}))\n")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("MAGEFLOW_METRICS_PORT", "0")
    monkeypatch.setenv("COLUMNS", "100")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HATCHET_")}
    command = [sys.executable, "-m", "mageflow"]
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "dev", "program.py", "--name", "reloads"],
            cwd=tmp_path,
            env=environment,
            stdout=output,
            stderr=output,
        )

    def wait_for(text: str, times: int = 1) -> None:
        deadline = time.monotonic() + 60
        while log.read_text().count(text) < times:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)

    def run() -> str:
        done = subprocess.run(
            [*command, "run", "--name", "reloads", "--", sys.executable, "run.py"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=90,
        )
        return done.stdout + done.stderr

    try:
        wait_for("worker.started")
        assert run() == "{'seen': 7}\n"
        wait_for("task.finished")
        program.write_text("this is no Python\n")
        wait_for("program.py changed: the worker starts again.")
        wait_for("program.py line 1: invalid syntax")
        wait_for("The worker ended with status 2.")
        program.write_text(PROGRAM.replace("served-by-command", "served").replace('"seen"', '"changed"'))
        wait_for("worker.started", 2)
        assert run() == "{'changed': 7}\n"
    finally:
        process.send_signal(signal.SIGINT)
        status = process.wait(60)

    text = log.read_text()
    assert status == 0
    assert "Stopped." in text
    assert "served-by-comma…" in text
    assert "outcome=succeeded" in text
    assert [line for line in text.splitlines() if len(line) > 180] == []
    assert "Traceback" not in text


@pytest.mark.slow
def test_dev_says_how_to_get_the_live_view(tmp_path):
    """Without the extra ``top`` the line of the live view begins with the command that installs it."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['textual'] = None\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HATCHET_")}
    environment |= {"PYTHONPATH": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state"), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "mageflow", "dev", "missing.py", "--name", "no-view"]
    with StartedProgram(command, cwd=tmp_path, env=environment, merged=True) as run:
        lines = [run.line() for _ in range(3)]
        run.send_signal(signal.SIGINT)
        status = run.ended().status
    assert lines[2].partition(" ")[2] == (
        f"Live view: {installs('top')}, then mageflow run --name no-view -- mageflow top\n"
    )
    assert status == 0
