"""Interrupts programs of mageflow at random moments, and checks that each ends and leaves no process behind.

``python -m tests.cli.interrupts --times 200`` prints a table: program, signal, interrupts, longest end, longest silence
(seconds from the signal to the first line of output, or to the end of a program that prints nothing more), leftovers.
The suite runs a few of each (``test_interrupts.py``).
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

import psutil

AIO_RUN = """
import asyncio
from hatchet_sdk import Hatchet
from mageflow import Mageflow
from mageflow.engine import LocalEngine

async def main():
    async with LocalEngine() as engine:
        client = Mageflow(engine.client())

        @client.task(name="has-no-worker")
        async def waits(message: dict) -> dict:
            return {}

        await waits.aio_run({})

asyncio.run(main())
"""
"""A program that waits for a run that no worker takes."""

WORKER = """
import asyncio
from mageflow import Mageflow, telemetry
from mageflow.engine import LocalEngine

with LocalEngine() as engine:
    client = Mageflow(engine.client())

    @client.task(name="takes-seconds")
    async def takes_seconds(message: dict) -> dict:
        await asyncio.sleep(4)
        return {}

    async def lifespan():
        for _ in range(3):
            await takes_seconds.aio_run({}, wait_for_result=False)
        yield None

    if __name__ == "__main__":
        telemetry.configure(service_name="interrupted", logs="json")
        client.worker("interrupted", workflows=[takes_seconds], lifespan=lifespan).start()
"""
"""A worker whose tasks run when it is interrupted. Its engine has a session of its own and gets no signal."""

FREE_PORTS = ["--name", "interrupts", "--grpc-port", "0", "--api-port", "0", "--redis-port", "0"]

PROGRAMS: dict[str, tuple[list[str], float]] = {
    "demo": (["-m", "mageflow", "demo", "--seconds", "1"], 14.0),
    "demo --serve": (["-m", "mageflow", "demo", "--seconds", "0", "--serve"], 30.0),
    "engine --redis": (["-m", "mageflow", "engine", *FREE_PORTS], 3.0),
    "dev": (["-m", "mageflow", "dev", "examples/stagger.py", "--name", "interrupts-dev"], 12.0),
    "aio_run": (["-c", AIO_RUN], 8.0),
    "worker": (["-c", WORKER], 8.0),
}
"""By name: arguments of Python, and the seconds within which it is interrupted."""

LIMIT_SECONDS = 30.0
SILENT_SECONDS = 1.0
"""A program that has not ended by then has said what it waits for. Printed, not judged: a busy machine takes longer."""


@dataclass(frozen=True)
class Interrupt:
    """What one interrupt did."""

    program: str
    number: signal.Signals
    after_seconds: float
    end_seconds: float | None
    silent_seconds: float
    leftovers: tuple[str, ...]
    output: str

    @property
    def is_right(self) -> bool:
        """Whether the program ended in time and left nothing."""
        return self.end_seconds is not None and not self.leftovers


class Output:
    """The lines that a process prints, with the time of each. Children of the process may hold the pipe open."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self._lines: list[tuple[float, str]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def silence_since(self, began: float, limit: float) -> float:
        """Seconds from a reading of the clock to the first line after it; at most the limit."""
        self._reader.join(1.0)
        return min([limit, *(at - began for at, _ in list(self._lines) if at > began)])

    def text(self) -> str:
        """Everything it has printed. Waits for the end of the pipe, at most 5 s: it is open while a child lives."""
        self._reader.join(5.0)
        return "".join(line for _, line in list(self._lines))

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._lines.append((time.monotonic(), line))


def interrupt(program: str, number: signal.Signals, after_seconds: float) -> Interrupt:
    """Start a program, send it one signal, and see how it ends."""
    arguments, _ = PROGRAMS[program]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    # A shell starts a program in the background with SIGINT ignored, `nohup` with SIGHUP; children inherit that.
    before = {each: signal.signal(each, signal.SIG_DFL) for each in (signal.SIGINT, signal.SIGHUP)}
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
        env=environment,
    )
    output = Output(process)
    for each, handler in before.items():
        signal.signal(each, handler)
    time.sleep(after_seconds)
    below: list[psutil.Process] = []
    if process.poll() is None:
        below = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, number)  # as a terminal does: everybody in the foreground group
    began = time.monotonic()
    end_seconds: float | None = None
    try:
        process.wait(LIMIT_SECONDS)
        end_seconds = time.monotonic() - began
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    silent_seconds = output.silence_since(began, LIMIT_SECONDS if end_seconds is None else end_seconds)
    _, alive = psutil.wait_procs(below, timeout=12)
    leftovers = tuple(" ".join(each.cmdline())[:100] for each in alive if each.is_running())
    for each in alive:
        each.kill()
    return Interrupt(program, number, after_seconds, end_seconds, silent_seconds, leftovers, output.text())


def main() -> None:
    """Interrupt every program in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=40, help="how many interrupts in total")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--program", choices=sorted(PROGRAMS), action="append")
    parser.add_argument("--signal", choices=["SIGINT", "SIGTERM", "SIGHUP", "SIGKILL"], action="append")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    names = options.program or list(PROGRAMS)
    found: list[Interrupt] = []
    for index in range(options.times):
        name = names[index % len(names)]
        chosen = options.signal or ["SIGINT", "SIGINT", "SIGTERM", "SIGHUP", "SIGKILL"]
        number = signal.Signals[chance.choice(chosen)]
        each = interrupt(name, number, chance.uniform(0.05, PROGRAMS[name][1]))
        found.append(each)
        if not each.is_right:
            print(f"WRONG {each}", flush=True)
        elif each.silent_seconds > SILENT_SECONDS:
            print(f"SILENT {each}", flush=True)
    print("| program | signal | interrupts | longest end | longest silence | did not end | leftovers |")
    print("|---|---|---|---|---|---|---|")
    for name in names:
        for number in sorted({each.number for each in found}):
            rows = [each for each in found if (each.program, each.number) == (name, number)]
            ends = [each.end_seconds for each in rows if each.end_seconds is not None]
            silence = max((each.silent_seconds for each in rows), default=0.0)
            print(
                f"| {name} | {number.name} | {len(rows)} | {max(ends, default=0):.1f} s | {silence:.1f} s "
                f"| {len(rows) - len(ends)} | {sum(bool(each.leftovers) for each in rows)} |"
            )
    if not all(each.is_right for each in found):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
