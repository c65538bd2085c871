"""Every command on the pages runs as read, beside the worker of the tutorial.

A command that cannot run here is in `tests.architecture.page_commands`, with the reason.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from mageflow.testing.ports import free_port
from tests.architecture import page_commands
from tests.architecture.page_commands import INTERACTIVE, NOT_RUN, RUNNING, commands, is_install
from tests.architecture.pages import Block, all_pages, blocks
from tests.cli.top.terminal import open_terminal
from tests.processes.shell import forking_commands

ROOT = Path(__file__).parents[2]
PAGES = all_pages(ROOT)
SHELL = [(page, block) for page, text in PAGES.items() for block in blocks(text) if block.language == "sh"]
CHECKED_ELSEWHERE = {"python": "test_page_blocks.py", "mermaid": "test_pages.py", "yaml": "test_page_files.py"}
CHECKED_ELSEWHERE |= {"json": "test_page_files.py", "promql": "test_page_files.py"}
NIGHTLY = """
import asyncio
from worker import Order, client, price_order


async def main():
    swarm = await client.swarm(name="nightly")
    await swarm.add(price_order, Order(number=1))
    await swarm.aio_run(wait_for_result=False)
    print(swarm.key)
    await client.aclose()


asyncio.run(main())
"""


def not_run(command: str) -> bool:
    return command.startswith(tuple(NOT_RUN))


def of_block(case: tuple[str, Block]) -> str:
    return f"{case[0]}:{case[1].line}"


@dataclass
class Stage:
    """An engine with a Valkey server, the worker of the tutorial, and a directory with its files."""

    directory: Path
    environment: dict[str, str]
    replaced: dict[str, str]
    forking: list[str]
    """Of the path of a shell: what it starts is a fork, not a new interpreter for each line."""
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def run(self, script: str, directory: Path | None = None) -> str:
        """What a shell prints for the script; it has no input, and ends at the first error."""
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", script],
            cwd=directory or self.directory,
            env=self.environment | {"PATH": os.pathsep.join([*self.forking, self.environment["PATH"]])},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=500,  # a machine that runs the whole suite is slow
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def start(self, command: str, ready: str, directory: Path | None = None) -> "subprocess.Popen[bytes]":
        """Start a command and wait until its output has the text."""
        log = self.directory / f"running-{len(self.running)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                shlex.split(command),
                cwd=directory or self.directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.running.append(process)
        deadline = time.monotonic() + 300
        while ready not in log.read_text():
            assert process.poll() is None, f"{command}\n{log.read_text()}"
            assert time.monotonic() < deadline, f"{command}\n{log.read_text()}"
            time.sleep(0.1)
        return process

    def stop(self, process: "subprocess.Popen[bytes]") -> int:
        """End it as Ctrl-C does, and give its status."""
        self.running.remove(process)
        process.send_signal(signal.SIGINT)
        return process.wait(60)

    def as_here(self, command: str) -> str:
        """The command with the ports and keys of this stage instead of those of the page."""
        for old, new in self.replaced.items():
            command = re.sub(rf"(?<![\w/]){re.escape(old)}(?!\w)", new, command)
        return command


@pytest.fixture(scope="module")
def forking(tmp_path_factory: pytest.TempPathFactory) -> Generator[list[str]]:
    with forking_commands(tmp_path_factory.mktemp("bin")) as folders:
        yield folders


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, forking: list[str]) -> Generator[Stage]:
    """The tutorial as read: `mageflow dev worker.py`, then `run.py`; and a swarm that waits for more."""
    directory = tmp_path_factory.mktemp("pages")
    for block in blocks(PAGES["docs/tutorial.md"]):
        if block.file_name:
            (directory / block.file_name).write_text(block.text)
    (directory / "shop").mkdir()
    (directory / "shop/tasks.py").write_text((directory / "worker.py").read_text())
    (directory / "nightly.py").write_text(NIGHTLY)
    ordinary = {name: value for name, value in os.environ.items() if not name.startswith(("HATCHET_", "MAGEFLOW_"))}
    port = free_port()
    environment = {
        **ordinary,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "XDG_STATE_HOME": str(directory / "state"),
        "MAGEFLOW_METRICS_PORT": str(port),
        "COLUMNS": "180",
        "PYTHONUNBUFFERED": "1",
    }
    found = Stage(directory, environment, {"localhost:18001": f"localhost:{port}"}, forking)
    try:
        found.start("mageflow engine --grpc-port 0 --api-port 0 --redis-port 0", "MAGEFLOW_REDIS_URL")
        found.start("mageflow dev worker.py", "worker.started")
        found.run("mageflow run -- python run.py")
        [key] = re.findall(r"^mageflow:\S+:swarm:\w+$", found.run("mageflow run -- python nightly.py"), re.MULTILINE)
        environment |= json.loads(found.run("mageflow env --json")) | {"MAGEFLOW_METRICS_PORT": "0"}
        found.replaced |= {
            "KEY": key,
            "7145337a39ac4664a326926cd4c1ee53": key.rpartition(":")[2],
            "18090": str(free_port()),
        }
        found.replaced["redis://localhost:6379"] = environment["MAGEFLOW_REDIS_URL"]
        yield found
    finally:
        for process in reversed(found.running[:]):
            found.stop(process)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", SHELL, ids=of_block)
def test_commands_of_a_page_run(case: tuple[str, Block], stage: Stage) -> None:
    """Each ends with status 0. One that runs until Ctrl-C becomes ready, and ends with 0 when it is interrupted."""
    block = case[1]
    directory = ROOT if "examples/" in block.text else stage.directory
    script: list[str] = []
    with ExitStack() as stack:
        for command in commands(block.text):
            if not_run(command) or is_install(command):
                continue
            if command in INTERACTIVE:
                show(stage, command, INTERACTIVE[command])
            elif command in RUNNING:
                ready, options = RUNNING[command]
                options = options.replace("--port 0", f"--port {free_port()}")
                process = stage.start(stage.as_here(command) + options, ready, directory)
                stack.callback(lambda process=process: exec_status(stage.stop(process)))
            else:
                script.append(stage.as_here(command))
        if script:
            stage.run("\n".join(script), directory)


def exec_status(status: int) -> None:
    assert status == 0


def show(stage: Stage, command: str, ready: str) -> None:
    """Run a command in a real terminal until it is ready, and leave it with `q`."""
    if shutil.which("tmux") is None:
        pytest.skip("needs tmux")
    with open_terminal(["sh", "-c", f"cd {stage.directory}; {command}"], stage.environment) as terminal:
        terminal.wait_for(lambda screen: ready in screen, 200)
        terminal.press("q")
        terminal.wait_for(lambda screen: "status 0" in screen, 200)


def test_every_block_is_run_or_says_why() -> None:
    """A block has a language that a test runs or checks, or its page is one of those that show no program."""
    unknown = {
        page
        for page, text in PAGES.items()
        for block in blocks(text)
        if block.language not in {"sh", *CHECKED_ELSEWHERE}
    }

    assert unknown == set(page_commands.NO_PROGRAM)
    assert all((Path(__file__).parent / test).exists() for test in CHECKED_ELSEWHERE.values())


def test_every_exception_is_needed_and_has_a_place() -> None:
    """No entry of the lists is left from an older page, and the tests that they name exist."""
    found = [command for _, block in SHELL for command in commands(block.text)]

    assert [each for each in NOT_RUN if not any(command.startswith(each) for command in found)] == []
    assert {*RUNNING, *INTERACTIVE} <= set(found)
    reasons = " ".join([*NOT_RUN.values(), *page_commands.NO_PROGRAM.values()])
    named = re.findall(r"tests/[\w/]+(?:\.py)?", reasons)
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_what_is_installed_exists() -> None:
    """Extras are those of the package, names those of its distribution, and programs those that it brings."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [command for _, block in SHELL for command in commands(block.text) if is_install(command)]
    assert len(lines) > 5
    programs = set()
    for line in " && ".join(lines).split(" && "):
        words = shlex.split(line)
        programs.add(words[0])
        if words[:2] in (["pip", "install"], [".venv/bin/pip", "install"]):
            [wanted] = [word for word in words[2:] if not word.startswith("-")]
            requirement = Requirement(wanted.replace(".", project["name"], 1) if wanted.startswith(".") else wanted)
            assert requirement.name == project["name"]
            assert requirement.extras <= set(project["optional-dependencies"])

    assert programs <= {
        "python3",
        "pip",
        *(f".venv/bin/{name}" for name in ("pip", "mageflow", "pytest", "pre-commit")),
    }
    brought = " ".join(each for extra in project["optional-dependencies"].values() for each in extra)
    assert {"pytest", "pre-commit"} <= set(re.findall(r"[\w-]+", brought))
    assert "mageflow" in project["scripts"]


def test_floors_of_the_page_are_those_of_the_linter() -> None:
    """The drawing of the floors has each package, in the order that import-linter holds."""
    contracts: list[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
    layers = next(each["layers"] for each in contracts if each["name"] == "imports go down the floors")
    floors = [{name.strip().removeprefix("mageflow.") for name in floor.split("|")} for floor in layers]
    [drawing] = [block for block in blocks(PAGES["docs/architecture.md"]) if not block.language]
    drawn = [{name.strip() for name in re.split(r"\s{3,}", line)[0].split("|")} for line in drawing.text.splitlines()]

    assert drawn == floors
