"""Every Python block on the pages runs, on a real engine with a real worker and a real Valkey."""

import ast
import gc
import inspect
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from hatchet_sdk import Hatchet
from hatchet_sdk.runnables.workflow import BaseWorkflow

from mageflow import Mageflow
from tests.architecture.pages import Block, all_pages, blocks

PAGES = ("README.md", "docs/tutorial.md")
STORIES = (
    "docs/decorators.md",
    "docs/engine.md",
    "docs/locks.md",
    "docs/signatures.md",
    "docs/migrating/from-hatchet.md",
)

OTHERS = ("docs/testing.md", "docs/observability.md", "docs/how-to/web-applications.md")


def python_blocks(page: Path) -> list[Block]:
    """Every Python block of a page."""
    return [block for block in blocks(page.read_text()) if block.language == "python"]


def save(page: Path, directory: Path) -> Path:
    """Save every block that names its file."""
    for block in python_blocks(page):
        if block.file_name:
            (directory / block.file_name).write_text(block.text)
    return directory


def test_every_page_with_python_is_run_by_a_test(root):
    """A page with a Python block is in one of the lists of this file."""
    with_python = {name for name, text in all_pages(root).items() if any(b.language == "python" for b in blocks(text))}

    assert with_python == {*PAGES, *STORIES, *OTHERS}


def run_program(directory: Path) -> str:
    """What ``run.py`` prints."""
    run = subprocess.run(
        [sys.executable, "run.py"], cwd=directory, env={**os.environ}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_first_task_of_the_front_page(root, tmp_path, mageflow_worker):
    """The worker of the page starts as `mageflow dev` starts it, and the program prints five reservations."""
    save(root / "README.md", tmp_path)
    mageflow_worker("mageflow", "worker", str(tmp_path / "worker.py"))

    assert run_program(tmp_path).count("'reserved'") == 5


def test_tutorial(root, tmp_path, mageflow_worker, mageflow_redis, monkeypatch):
    """Every step of the tutorial prints what the page says: a price, five staggered runs, a chain, two transfers."""
    monkeypatch.setenv("MAGEFLOW_REDIS_URL", mageflow_redis.url)
    save(root / "docs/tutorial.md", tmp_path)
    worker = mageflow_worker(tmp_path / "worker.py")

    printed = run_program(tmp_path)
    assert "deadlock.detected" in worker.output()
    assert "{'price': 107}" in printed
    assert printed.count("'attempt': 1") == 5
    assert "{'packed': 7, 'shipped': True}" in printed
    assert "{'moved': 'ada to bob'}" in printed
    assert "{'moved': 'bob to ada'}" in printed


def test_test_of_the_page_passes(root, tmp_path):
    """The page's own tests pass in a pytest of its own, with nothing but the plugin."""
    save(root / "docs/testing.md", tmp_path)
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "test_orders.py",
            "test_shop.py",
            "test_tasks.py",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stdout + run.stderr
    assert "4 passed" in run.stdout


def compiled(page: str, block: Block) -> Any:
    """A block as code that may await."""
    return compile("\n" * block.line + block.text, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("page", STORIES)
async def test_every_other_block_runs(root, page, mageflow_worker, mageflow_redis, monkeypatch):
    """The blocks of a page are one story: what is declared runs on one worker, then the rest awaits its results."""
    monkeypatch.setenv("MAGEFLOW_METRICS_PORT", "0")
    space: dict[str, Any] = {"__name__": "page"}
    codes = [
        compiled(page, Block(each.language, each.text.replace("redis://localhost:6379", mageflow_redis.url), each.line))
        for each in python_blocks(root / page)
    ]
    awaiting = [code for code in codes if code.co_flags & inspect.CO_COROUTINE]
    for code in codes:
        if code not in awaiting:
            exec(code, space)  # noqa: S102 - our own page

    declared = [value for value in space.values() if isinstance(value, BaseWorkflow)]
    assert declared or not awaiting or "client" not in space
    if declared:
        mageflow_worker.in_process(space["client"], "page", workflows=declared)
    for code in awaiting:
        await eval(code, space)  # noqa: S307 - our own page
    if "client" in space:
        await space["client"].aclose()


def test_metrics_of_a_program_that_only_sends(root, mageflow_engine, monkeypatch):
    """The two lines of the page: an application has the metrics under a path, and a program at a port."""
    monkeypatch.setenv("MAGEFLOW_METRICS_PORT", "0")
    block = python_blocks(root / "docs/observability.md")[0]
    client, app = Mageflow(Hatchet()), FastAPI()
    served = [eval(line, {"client": client, "app": app}) for line in block.text.splitlines()]  # noqa: S307 - our own page

    assert "/metrics" in {route.path for route in app.routes}
    with urllib.request.urlopen(served[-1].url, timeout=60) as answer:  # noqa: S310 - our own
        assert b"process_cpu_seconds_total" in answer.read()
    served[-1].stop()


def test_spans_to_a_file(root, tmp_path, mageflow_worker):
    """The provider of the page, before the worker of the front page: each attempt is in the file."""
    save(root / "README.md", tmp_path)
    provider = python_blocks(root / "docs/observability.md")[1].text
    spans, worker = tmp_path / "spans.json", tmp_path / "worker.py"
    worker.write_text(provider.replace('"spans.json"', repr(str(spans))) + worker.read_text())
    started = mageflow_worker("mageflow", "worker", str(worker))
    run_program(tmp_path)
    started.stop()

    assert spans.read_text().count('"name": "process reserve-stock"') == 5


def test_settings_of_a_preloading_server(root):
    """The hook of the page takes the imported modules out of Python's search for garbage."""
    [block] = python_blocks(root / "docs/how-to/web-applications.md")
    settings: dict[str, Any] = {}
    exec(compiled("web-applications.md", block), settings)  # noqa: S102 - our own page
    assert settings["preload_app"]
    gc.unfreeze()  # `pytest_collection_finish` has frozen what was collected
    assert gc.get_freeze_count() == 0
    settings["when_ready"](None)
    assert gc.get_freeze_count() > 10_000
