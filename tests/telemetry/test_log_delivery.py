"""Errors of mageflow can be read in every set-up of logging, and never appear twice."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import asyncio, logging, logging.config, os, sys
import structlog
from hatchet_sdk import Hatchet
from mageflow import Mageflow

how = sys.argv[1]
client = Mageflow(Hatchet())

@client.task(name="fails")
async def fails(message: dict) -> dict:
    raise ValueError("x")

if how == "dictConfig":
    logging.config.dictConfig({
        "version": 1,
        "handlers": {"out": {"class": "logging.StreamHandler", "stream": "ext://sys.stderr"}},
        "root": {"level": "INFO", "handlers": ["out"]},
    })
elif how == "structlog":
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.processors.JSONRenderer()],
        logger_factory=structlog.PrintLoggerFactory(),
    )
elif how == "basicConfig":
    logging.basicConfig(level=logging.INFO, format="%(message)s")

async def drive():
    await asyncio.sleep(1)
    try:
        await fails.aio_run({})
    except Exception:
        pass
    await asyncio.sleep(1)
    sys.stderr.flush()
    os._exit(0)

async def lifespan():
    task = asyncio.create_task(drive())
    yield None

if __name__ == "__main__":
    client.worker("logs", workflows=[fails], lifespan=lifespan).start()
"""


@pytest.fixture
def stderr(mageflow_engine, tmp_path: Path, monkeypatch):
    """What a worker with this set-up writes to standard error while one run fails."""
    monkeypatch.setenv("MAGEFLOW_METRICS_PORT", "0")

    def run(how: str) -> list[str]:
        program = tmp_path / "program.py"
        program.write_text(PROGRAM)
        ended = subprocess.run(
            [sys.executable, str(program), how], capture_output=True, text=True, check=False, timeout=200
        )
        assert ended.returncode == 0, ended.stderr
        return [line for line in ended.stderr.splitlines() if "mageflow" in line]

    return run


@pytest.mark.slow
@pytest.mark.parametrize("how", ["nothing", "structlog"])
def test_errors_appear_where_the_program_has_set_up_no_handler(stderr, how):
    """The failed attempt is one line on standard error, also beside Hatchet's log forwarder."""
    found = [line for line in stderr(how) if "mageflow.task.failed" in line]

    assert len(found) == 1
    assert '"exception": "ValueError"' in found[0]


@pytest.mark.slow
def test_a_handler_of_the_program_gets_each_event_once(stderr):
    """With a root handler nothing is printed beside it."""
    found = [line for line in stderr("basicConfig") if "mageflow.task.failed" in line]

    assert len(found) == 1


@pytest.mark.slow
def test_a_disabled_logger_is_reported_at_the_start_of_the_worker(stderr):
    """DictConfig after the import disables the logger; one line says so and names the remedy."""
    found = [line for line in stderr("dictConfig") if "is disabled" in line]

    assert len(found) == 1
    assert found[0] == (
        "the logger 'mageflow' is disabled, so no event of mageflow appears: call logging.config.dictConfig with "
        "'disable_existing_loggers': False, or before mageflow is imported"
    )
