"""Ctrl-C is answered at once with what is being waited for, also while a program starts or waits without a loop."""

import signal
import sys

import pytest

from tests.started_program import StartedProgram

SYNCHRONOUS = """
import time
from mageflow.cli.interrupts import answered
with answered("Stopping: the worker ends."):
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        time.sleep(1)
        print("works no more", flush=True)
"""

ASYNCHRONOUS = """
import asyncio, signal
from mageflow.cli.interrupts import answered, run_answered

async def work():
    try:
        print("ready", flush=True)
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(1)
        print("works no more", flush=True)

with answered("Stopping: too late."):
    run_answered(work(), "Stopping: the worker ends.")
"""

STOPPED = """
import time
from mageflow.cli.interrupts import stop_on_signals
stopped = stop_on_signals("Stopping: the worker ends.")
print("ready", flush=True)
stopped.wait(60)
time.sleep(1)
print("works no more", flush=True)
"""

MANY_SIGNALS = """
import os, signal, threading, time
from mageflow.cli.interrupts import stop_on_signals
stopped = stop_on_signals("Stopping: the worker ends.")
waited = [stopped.wait(0.01)]

def send():
    for number in range(20_000):
        os.kill(os.getpid(), signal.SIGINT if number % 2 else signal.SIGTERM)

sending = threading.Thread(target=send, daemon=True)
sending.start()
while sending.is_alive():
    waited.append(stopped.wait(0.001))
print(waited[0], waited[-1], stopped.wait(), stopped.is_set())
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
    with StartedProgram([sys.executable, "-c", program], merged=True) as run:
        assert run.line() == "ready\n"
        run.send_signal(number)
        assert run.line() == "Stopping: the worker ends.\n"
        assert run.line() == "works no more\n", "the answer came once, and before the end of the work"
        assert "Stopping" not in run.ended().output


def test_a_signal_in_the_middle_of_a_wait_ends_it() -> None:
    """Many come at every moment of many waits, also while another one is handled: no wait hangs."""
    with StartedProgram([sys.executable, "-c", MANY_SIGNALS]) as run:
        assert run.line() == "False True True True\n"
        assert run.error_line() == "Stopping: the worker ends.\n"
        assert run.ended() == (0, "", "")
