"""Ctrl-C is answered at once with what is being waited for, also while a program starts or waits without a loop."""

import signal
import subprocess
import sys
import time

import pytest

SYNCHRONOUS = """
import time
from mageflow.cli.interrupts import answered
with answered("Stopping: the worker ends."):
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        time.sleep(3)
"""

ASYNCHRONOUS = """
import asyncio, signal
from mageflow.cli.interrupts import answered, run_answered

async def work():
    try:
        print("ready", flush=True)
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(3)

with answered("Stopping: too late."):
    run_answered(work(), "Stopping: the worker ends.")
"""

STOPPED = """
import threading, time
from mageflow.cli.interrupts import stop_on_signals
stopped = threading.Event()
stop_on_signals(stopped.set, "Stopping: the worker ends.")
print("ready", flush=True)
stopped.wait(60)
time.sleep(3)
"""


@pytest.mark.parametrize(
    ("program", "number"),
    [
        (SYNCHRONOUS, signal.SIGINT),
        (ASYNCHRONOUS, signal.SIGINT),
        (STOPPED, signal.SIGINT),
        (STOPPED, signal.SIGTERM),
    ],
)
def test_the_answer_comes_before_the_end(program: str, number: signal.Signals) -> None:
    """And it comes once."""
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        signal.signal(signal.SIGINT, before)
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.stderr.readline() == b"Stopping: the worker ends.\n"
        answered_at = time.monotonic()
        assert b"Stopping" not in process.stderr.read(), "once"
        process.wait(60)
        assert time.monotonic() - answered_at > 1.0, "long before the end"
