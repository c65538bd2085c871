"""Interrupts programs of mageflow at random moments, and checks that each ends and leaves no process behind.

``python -m tests.cli.interrupts --times 200`` prints a table: program, signal, interrupts, longest end, leftovers. The
suite runs a few of each (``test_interrupts.py``).
"""

import argparse
import os
import random
import signal
import subprocess
import sys
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

FREE_PORTS = ["--name", "interrupts", "--grpc-port", "0", "--api-port", "0", "--redis-port", "0"]

PROGRAMS: dict[str, tuple[list[str], float]] = {
    "demo": (["-m", "mageflow", "demo", "--seconds", "1"], 14.0),
    "demo --serve": (["-m", "mageflow", "demo", "--seconds", "0", "--serve"], 30.0),
    "engine --redis": (["-m", "mageflow", "engine", *FREE_PORTS], 3.0),
    "dev": (["-m", "mageflow", "dev", "examples/stagger.py", "--name", "interrupts-dev"], 12.0),
    "aio_run": (["-c", AIO_RUN], 8.0),
}
"""By name: arguments of Python, and the seconds within which it is interrupted."""

LIMIT_SECONDS = 30.0


@dataclass(frozen=True)
class Interrupt:
    """What one interrupt did."""

    program: str
    number: signal.Signals
    after_seconds: float
    end_seconds: float | None
    leftovers: tuple[str, ...]
    output: str

    @property
    def is_right(self) -> bool:
        """Whether the program ended in time and left nothing."""
        return self.end_seconds is not None and not self.leftovers


def interrupt(program: str, number: signal.Signals, after_seconds: float) -> Interrupt:
    """Start a program, send it one signal, and see how it ends."""
    arguments, _ = PROGRAMS[program]
    # A shell starts a program in the background with SIGINT ignored, `nohup` with SIGHUP; children inherit that.
    before = {each: signal.signal(each, signal.SIG_DFL) for each in (signal.SIGINT, signal.SIGHUP)}
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )
    for each, handler in before.items():
        signal.signal(each, handler)
    time.sleep(after_seconds)
    below: list[psutil.Process] = []
    if process.poll() is None:
        below = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, number)  # as a terminal does: everybody in the foreground group
    began = time.monotonic()
    try:
        output, _ = process.communicate(timeout=LIMIT_SECONDS)
        end_seconds: float | None = time.monotonic() - began
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        end_seconds = None
    _, alive = psutil.wait_procs(below, timeout=12)
    leftovers = tuple(" ".join(each.cmdline())[:100] for each in alive if each.is_running())
    for each in alive:
        each.kill()
    return Interrupt(program, number, after_seconds, end_seconds, leftovers, output)


def main() -> None:
    """Interrupt every program in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=40, help="how many interrupts in total")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--program", choices=sorted(PROGRAMS), action="append")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    names = options.program or list(PROGRAMS)
    found: list[Interrupt] = []
    for index in range(options.times):
        name = names[index % len(names)]
        number = chance.choice([signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
        each = interrupt(name, number, chance.uniform(0.05, PROGRAMS[name][1]))
        found.append(each)
        if not each.is_right:
            print(f"WRONG {each}", flush=True)
    print("| program | signal | interrupts | longest end | did not end | leftovers |\n|---|---|---|---|---|---|")
    for name in names:
        for number in sorted({each.number for each in found}):
            rows = [each for each in found if (each.program, each.number) == (name, number)]
            ends = [each.end_seconds for each in rows if each.end_seconds is not None]
            print(
                f"| {name} | {number.name} | {len(rows)} | {max(ends, default=0):.1f} s "
                f"| {len(rows) - len(ends)} | {sum(bool(each.leftovers) for each in rows)} |"
            )
    if not all(each.is_right for each in found):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
