"""With `configure` a run is one line, not four: the SDK's lines that repeat it are dropped, and no other line is."""

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hatchet_sdk import Hatchet

from mageflow.testing import WorkerProcess

PROGRAM = Path(__file__).with_name("run_lines_worker.py")
OURS = ("lines-ok", "lines-thread", "lines-durable", "lines-fails", "lines-cancelled")
ENDS = ("mageflow.task.finished", "mageflow.task.failed", "mageflow.task.cancelled")
SDK_LINES = ("rx: start step run: ", "run: start step: ", "finished step run: ")

pytestmark = pytest.mark.slow


@pytest.fixture
def lines_of(mageflow_worker) -> Callable[..., Awaitable[list[str]]]:
    """What a worker and its listener process log of one run of each task."""

    async def run(configured: str, levels: str = "{}") -> list[str]:
        environment = {"MAGEFLOW_METRICS_PORT": "0"}
        worker = mageflow_worker(PROGRAM, configured, levels, environment=environment, start=False)
        await worker.aio_start(300)
        hatchet = Hatchet()
        for task in ("lines-ok", "lines-thread", "lines-durable", "lines-plain"):
            await hatchet.stubs.task(name=task).aio_run()
        with pytest.raises(Exception, match="ValueError"):
            await hatchet.stubs.task(name="lines-fails").aio_run()
        started = await hatchet.stubs.task(name="lines-cancelled").aio_run(wait_for_result=False)
        await seen(worker, "the body has begun")
        await hatchet.runs.aio_cancel(started.workflow_run_id)
        await seen(worker, "cancel: step run: ")
        await worker.aio_stop()
        return worker.output().splitlines()

    return run


async def seen(worker: WorkerProcess, text: str) -> None:
    """Wait until the worker has written a text."""
    async with asyncio.timeout(60):
        while text not in worker.output():
            await asyncio.sleep(0.1)


def sdk_lines(lines: list[str]) -> Counter[tuple[str, str]]:
    """How often the SDK wrote each of its lines of a run, by line and task."""
    found: Counter[tuple[str, str]] = Counter()
    for line in lines:
        for start in SDK_LINES:
            if start in line:
                ids = line.partition(start)[2].split("/")
                action = next(each for each in ids if ":" in each)
                found[start, action.partition(":")[0]] += 1
    return found


def every_line_of(*tasks: str) -> Counter[tuple[str, str]]:
    """The SDK's three lines of each task; a run that fails or is cancelled has no last one."""
    pairs = [(start, task) for task in tasks for start in SDK_LINES]
    no_last = {"lines-fails", "lines-cancelled"}
    return Counter((start, task) for start, task in pairs if start != SDK_LINES[2] or task not in no_last)


async def test_a_run_of_a_task_is_one_line_and_the_rest_of_the_sdk_is_as_it_was(lines_of):
    """The three lines of a plain task stay; so do those of failures and cancellations."""
    lines = await lines_of("{}")
    events = [json.loads(line) for line in lines]

    assert sdk_lines(lines) == every_line_of("lines-plain")
    ended = Counter((each["event"], each["task"]) for each in events if each["event"] in ENDS)
    assert ended == Counter(
        {
            ("mageflow.task.finished", "lines-ok"): 1,
            ("mageflow.task.finished", "lines-thread"): 1,
            ("mageflow.task.finished", "lines-durable"): 1,
            ("mageflow.task.failed", "lines-fails"): 1,
            ("mageflow.task.cancelled", "lines-cancelled"): 1,
        }
    )
    hatchets = [each["event"] for each in events if each["logger"] == "hatchet"]
    assert len([each for each in hatchets if each.startswith("failed step run: lines-fails")]) == 1
    assert len([each for each in hatchets if each.startswith("rx: cancel step run: ")]) == 1
    assert len([each for each in hatchets if each.startswith("cancel: step run: ")]) == 1
    assert "the body has begun" in hatchets


async def test_all_lines_stay_without_configure(lines_of):
    """The log of the SDK is then as without mageflow."""
    assert sdk_lines(await lines_of("None")) == every_line_of(*OURS, "lines-plain")


async def test_all_lines_stay_where_the_event_of_an_attempt_is_not_written(lines_of):
    """Otherwise a run would leave no line."""
    lines = await lines_of("{}", "{'mageflow': 'WARNING'}")

    assert sdk_lines(lines) == every_line_of(*OURS, "lines-plain")


# What the program has called `configure` with is seen without a worker too.
CONFIGURED = """
import sys
from hatchet_sdk.logger import logger
from mageflow.telemetry import configure
from mageflow.telemetry.run_lines import ALWAYS, note_actions
note_actions(["shop-send:send"], ALWAYS)
{calls}
logger.info("run: start step: shop-send:send/1")
logger.info("finished step run: shop-send:send/1")
logger.info("rx: start step run: 1/shop-send:send")
logger.warning("run: start step: shop-send:send/1")
logger.info("run: start step: shop-send:send")
logger.info("run: start step: shop-send:send-more/1")
"""
OTHER_LINES = 3


@pytest.mark.parametrize(
    ("calls", "environment", "count"),
    [
        ("configure(service_name='shop')", {}, 0),
        ("configure(service_name='shop', logs='console')", {}, 0),
        ("configure(service_name='shop', logs=None)", {}, 3),
        ("configure(service_name='shop', hatchet_run_lines=True)", {}, 3),
        ("configure(service_name='shop')", {"MAGEFLOW_HATCHET_RUN_LINES": "true"}, 3),
        ("configure(service_name='shop', hatchet_run_lines=False)", {"MAGEFLOW_HATCHET_RUN_LINES": "true"}, 0),
        ("configure(service_name='shop')\nconfigure(service_name='shop', hatchet_run_lines=True)", {}, 3),
        ("configure(service_name='shop')\nlogger.setLevel('DEBUG')", {}, 3),
    ],
    ids=["json", "console", "no-logs", "argument", "variable", "argument-wins", "second-call", "debug"],
)
def test_the_lines_stay_where_they_are_asked_for(tmp_path, calls, environment, count):
    """By an argument, a variable, or debug of the SDK; no other text is dropped in any case."""
    ended = ended_program(tmp_path, CONFIGURED.format(calls=calls), environment)

    assert ended.returncode == 0, ended.stderr
    assert len((ended.stdout + ended.stderr).splitlines()) == count + OTHER_LINES


def ended_program(tmp_path: Path, text: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a program in a file, so that it is a fork that has the SDK already."""
    file = tmp_path / "program.py"
    file.write_text(text)
    return subprocess.run(
        [sys.executable, str(file)], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


OWN_HANDLER = """
import logging
from hatchet_sdk.logger import logger
from mageflow.telemetry import configure
from mageflow.telemetry.run_lines import ALWAYS, note_actions

class Counted(logging.Handler):
    texts = []

    def emit(self, record):
        self.texts.append(record.getMessage())

logger.addHandler(Counted())
note_actions(["shop-send:send"], ALWAYS)
configure(service_name="shop")
logger.info("finished step run: shop-send:send/1")
print(Counted.texts)
"""


def test_a_handler_of_the_program_gets_the_lines(tmp_path):
    """`configure` speaks for the handlers that it sets up, and takes nothing from others."""
    ended = ended_program(tmp_path, OWN_HANDLER, {})

    assert (ended.stdout, ended.stderr) == ("['finished step run: shop-send:send/1']\n", "")


# A record costs more than what is done with it: the SDK makes three for each run.
OBSERVED = """
import json, logging
from hatchet_sdk.logger import logger
from mageflow.telemetry import configure
from mageflow.telemetry.run_lines import ALWAYS, note_actions
note_actions(["shop-send:send"], ALWAYS)
configure(service_name="shop")
made, seen = [], []
make = logging.Logger.makeRecord
def make_and_note(self, *args, **options):
    record = make(self, *args, **options)
    made.append([record.getMessage(), record.funcName])
    return record
logging.Logger.makeRecord = make_and_note
class Seen(logging.Handler):  # a handler of the program
    def emit(self, record):
        seen.append(record.getMessage())
{observer}
def send():
    logger.info("run: start step: shop-send:send/1")
    logger.info("finished step run: shop-send:send/1")
    logger.info("rx: start step run: 1/shop-send:send")
    logger.info("another %s", "line")
send()
print(json.dumps([made, seen]))
"""
FACTORY = """
usual = logging.getLogRecordFactory()
def factory(*args, **options):
    record = usual(*args, **options)
    if record.name == logger.name:  # the root handler makes a copy of each
        seen.append(record.getMessage())
    return record
logging.setLogRecordFactory(factory)
"""
TRACKER = """
call = logging.Logger.callHandlers
def call_and_note(self, record):
    seen.append(record.getMessage())
    call(self, record)
logging.Logger.callHandlers = call_and_note
"""


REPEATED = [
    "run: start step: shop-send:send/1",
    "finished step run: shop-send:send/1",
    "rx: start step run: 1/shop-send:send",
]


@pytest.mark.parametrize(
    ("observer", "is_seen"),
    [
        ("", False),
        ("logger.addHandler(Seen(logging.ERROR))", False),
        ("logger.addHandler(Seen())", True),
        ("logger.propagate = True; logging.getLogger().addHandler(Seen())", True),
        ("logger.addFilter(lambda record: seen.append(record.getMessage()) or True)", True),
        (FACTORY, True),
        (TRACKER, True),
    ],
    ids=["nothing", "handler-of-errors", "handler", "root-handler", "filter", "record-factory", "error-tracker"],
)
def test_no_record_is_made_of_a_line_that_nothing_gets(tmp_path, observer, is_seen):
    """Where something of the program may see the lines, all are made. Other lines keep their caller."""
    ended = ended_program(tmp_path, OBSERVED.format(observer=observer), {})

    assert ended.returncode == 0, ended.stderr
    made, seen = json.loads(ended.stdout)
    expected = [*(REPEATED if is_seen else []), "another line"]
    assert made == [[each, "send"] for each in expected]
    assert seen == (expected if is_seen else [])
