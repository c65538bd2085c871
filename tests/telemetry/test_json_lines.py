"""With `configure`, each line that a worker and its listener process log is one JSON object, without exception text."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CANARY = "canary-7f3a"

PROGRAM = """
import asyncio, logging, os, sys, threading, warnings
import structlog
from hatchet_sdk import Hatchet
from mageflow import Mageflow
from mageflow.telemetry import configure

CANARY = "canary-7f3a"
client = Mageflow(Hatchet())

@client.task(name="lines-fail", retries=0)
async def fails(message: dict) -> dict:
    logging.getLogger("shop").exception("own", exc_info=KeyError(CANARY))
    structlog.get_logger("shop").error("own", exc_info=KeyError(CANARY))
    raise ValueError(CANARY)

@client.task(name="lines-output")
async def no_json(message: dict) -> dict:
    return {"value": {1, 2}, "secret": object()}

def in_thread():
    raise LookupError(CANARY)

async def unretrieved():
    raise OSError(CANARY)

async def drive():
    await asyncio.sleep(1)
    for task in (fails, no_json):
        try:
            await task.aio_run({})
        except Exception:
            pass
    warnings.warn("old name", DeprecationWarning)
    thread = threading.Thread(target=in_thread, name="counts")
    thread.start()
    thread.join()
    lost = asyncio.create_task(unretrieved())
    await asyncio.sleep(0.1)
    del lost
    await asyncio.sleep(1)
    os.kill(os.getpid(), 15)

async def lifespan():
    task = asyncio.create_task(drive())
    yield None

if __name__ == "__main__":
    configure(service_name="lines", **eval(sys.argv[1]))
    warnings.simplefilter("default")
    client.worker("lines", workflows=[fails, no_json], lifespan=lifespan).start()
"""


@pytest.fixture
def printed(mageflow_engine, tmp_path: Path, monkeypatch):
    """All lines that the program and its child process write to both streams."""
    monkeypatch.setenv("MAGEFLOW_METRICS_PORT", "0")
    monkeypatch.setenv("HATCHET_CLIENT_DEBUG", "true")

    def run(arguments: str) -> list[str]:
        program = tmp_path / "program.py"
        program.write_text(PROGRAM)
        ended = subprocess.run(
            [sys.executable, str(program), arguments], capture_output=True, text=True, check=False, timeout=200
        )
        return (ended.stdout + ended.stderr).splitlines()

    return run


def records(lines: list[str]) -> list[dict[str, Any]]:
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:
            pytest.fail(f"no JSON: {line!r}")
    return found


@pytest.mark.slow
def test_each_line_of_worker_and_listener_is_json_without_exception_text(printed):
    """Hatchet's own logger, Python warnings, a failed thread and a lost task of asyncio speak JSON too."""
    lines = printed("{}")
    found = records(lines)

    assert not [line for line in lines if CANARY in line]
    by_logger: dict[str, list[dict[str, Any]]] = {}
    for record in found:
        by_logger.setdefault(record["logger"], []).append(record)
    failed = [r for r in by_logger["hatchet"] if r["event"].startswith("failed step run: lines-fail")]
    assert [(r["level"], r["exception"], "\n" in r["event"]) for r in failed] == [("error", "ValueError", False)]
    [place] = [r["raised_at"] for r in found if r["event"] == "mageflow.task.failed" and r["task"] == "lines-fail"]
    assert place == failed[0]["raised_at"]
    assert place.startswith("__main__:")
    own = [(r["event"], r["level"], r["exception"], r["task"]) for r in by_logger["shop"]]
    assert own == [("own", "error", "KeyError", "lines-fail")] * 2
    assert [r["level"] for r in by_logger["py.warnings"] if "old name" in r["event"]] == ["warning"]
    assert [r["exception"] for r in by_logger["asyncio"]] == ["OSError"]
    uncaught = [r for r in found if r["event"] == "uncaught exception"]
    assert [(r["exception"], r["thread"]) for r in uncaught] == [("LookupError", "counts")]
    assert uncaught[0]["raised_at"].startswith("__main__:")
    # The listener is a process of its own, which runs no code of the program's main block.
    assert "starting action listener" in " ".join(r["event"] for r in by_logger["hatchet"])


@pytest.mark.slow
def test_exception_text_appears_when_it_is_asked_for(printed, monkeypatch):
    """With the traceback, on the same line; also in mageflow's own events."""
    monkeypatch.setenv("MAGEFLOW_EXCEPTION_DETAIL", "full")
    found = records(printed("{}"))

    hatchets = [r for r in found if r["logger"] == "hatchet" and r["event"].startswith("failed step run: lines-fail")]
    assert len(hatchets) == 1
    assert f"ValueError: {CANARY}" in hatchets[0]["exception"]
    # The SDK's text repeats the traceback, which is a field here.
    assert hatchets[0]["event"].count("\n") == 0
    # mageflow's event has it too: the SDK logs no traceback of an attempt that is retried.
    [failed] = [r["exception"] for r in found if r["event"] == "mageflow.task.failed" and r["task"] == "lines-fail"]
    assert failed.startswith("Traceback (most recent call last):")
    assert failed.endswith(f"ValueError: {CANARY}")
    own = [r["exception"] for r in found if r["event"] == "own"]
    assert len(own) == 2
    assert all(each.endswith(f"KeyError: '{CANARY}'") for each in own)
