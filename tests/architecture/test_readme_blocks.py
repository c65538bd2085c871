"""Every Python block on the front page runs, on a real engine with a real worker and a real Valkey."""

import ast
import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hatchet_sdk.runnables.workflow import BaseWorkflow

from tests.architecture.readme import Block, blocks


def python_blocks(root: Path) -> list[Block]:
    """Every Python block of the page."""
    return [block for block in blocks((root / "README.md").read_text()) if block.language == "python"]


@pytest.fixture
def saved(root: Path, tmp_path: Path) -> Path:
    """A directory with every block that says what file it is."""
    for block in python_blocks(root):
        if block.file_name:
            (tmp_path / block.file_name).write_text(block.text)
    return tmp_path


def test_five_minute_start(saved, mageflow_worker):
    """The worker of the page starts, and the program of the page prints what the page promises."""
    mageflow_worker(saved / "worker.py")

    run = subprocess.run(
        [sys.executable, "run.py"], cwd=saved, env={**os.environ}, capture_output=True, text=True, check=False
    )

    assert run.returncode == 0, run.stderr
    assert "{'price': 107}" in run.stdout
    assert run.stdout.count("'attempt': 1") == 5


def test_test_of_the_page_passes(saved):
    """The page's own test passes in a pytest of its own, with nothing but the plugin."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_orders.py"],
        cwd=saved,
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stdout + run.stderr
    assert "1 passed" in run.stdout


def compiled(block: Block) -> Any:
    """A block as code that may await."""
    return compile("\n" * block.line + block.text, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def awaits(block: Block) -> bool:
    """Whether a block awaits at its top level: then it needs a worker for what was declared before."""
    return bool(compiled(block).co_flags & inspect.CO_COROUTINE)


async def test_every_other_block_runs(root, mageflow_worker, mageflow_redis, monkeypatch):
    """Blocks in between are one story: what is declared runs on one worker, then the rest awaits its results."""
    worker = next(block for block in python_blocks(root) if block.file_name == "worker.py")
    story = [block for block in python_blocks(root) if not block.file_name]
    monkeypatch.setenv("MAGEFLOW_METRICS_PORT", "0")
    space: dict[str, Any] = {"__name__": "readme"}

    for block in [worker, *(each for each in story if not awaits(each))]:
        text = block.text.replace("redis://localhost:6379", mageflow_redis.url)
        exec(compiled(Block(block.language, text, block.line)), space)  # noqa: S102 - our own page

    declared = [value for value in space.values() if isinstance(value, BaseWorkflow)]
    assert len(declared) >= 5
    mageflow_worker.in_process(space["client"], "readme", workflows=declared)

    awaiting = [block for block in story if awaits(block)]
    assert awaiting
    for block in awaiting:
        await eval(compiled(block), space)  # noqa: S307 - our own page
    await space["client"].aclose()
