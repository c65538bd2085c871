"""What telemetry costs the worker of each system: ``python -m tests.benchmarks.peers``. Run it alone.

Needs the extra ``peers``. Every system runs tasks that do nothing, in one worker, on the same Valkey (mageflow: on the
local engine, with that Valkey), once bare and once with its own spans, metrics and logs on. Compared is the CPU time of
the worker per task, with everything on, beside the same system's own bare run; the sides take turns. The table shows
medians; ``docs/performance.md`` says what each system records.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import redis

from mageflow.engine import LocalEngine
from mageflow.testing import EmbeddedValkey, WorkerProcess
from tests.benchmarks.__main__ import PAGE, ROOT, write
from tests.benchmarks.peers.signals import DONE
from tests.benchmarks.processes import group_cpu_seconds

SYSTEMS: Final = ("mageflow", "docket", "taskiq", "celery")
SIDES: Final = ("bare", "on")
START, END = "<!-- peers: python -m tests.benchmarks.peers --write -->", "<!-- end of the peers -->"
PROGRAM: Final = "tests.benchmarks.peers.program"
PATIENCE_SECONDS: Final = 120.0
WARM_UP: Final = 100

Worker = tuple[int, Callable[[], bool]]
"""The process group of a worker, and whether the worker has ended."""


def command(system: str, role: str, side: str, url: str) -> list[str]:
    """How one process is started."""
    return [sys.executable, "-m", PROGRAM, system, role, side, url]


@contextmanager
def worker(system: str, side: str, url: str, engine: LocalEngine, output: Path) -> Iterator[Worker]:
    """Run the worker of one side; yields its process group and whether it has ended."""
    if system == "mageflow":  # Hatchet starts no run before a worker has registered it
        running = WorkerProcess(engine, PROGRAM, system, "worker", side, url, output=output).start(300)
        try:
            yield running.pid, lambda: running.returncode is not None
        finally:
            running.stop()
        return
    with output.open("w") as log:
        process = subprocess.Popen(
            command(system, "worker", side, url), cwd=ROOT, stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield process.pid, lambda: process.poll() is not None
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class Sender:
    """Sends batches and waits until the worker has run them."""

    def __init__(self, process: "subprocess.Popen[str]", client: redis.Redis, output: Path) -> None:
        self._process = process
        self._client = client
        self._output = output

    def batch(self, count: int, has_ended: Callable[[], bool]) -> None:
        """Send that many tasks; returns when the last one has run."""
        assert self._process.stdin is not None
        self._client.delete(DONE)
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self._client.exists(DONE):
            if self._process.poll() is not None or has_ended() or time.monotonic() > deadline:
                raise AssertionError(f"the batch was not run:\n{self._output.read_text()[-2000:]}")
            time.sleep(0.02)
        time.sleep(0.3)  # acknowledgements, and the spans and events of the last ones


@contextmanager
def sender(system: str, side: str, url: str, output: Path) -> Iterator[Sender]:
    """Run the sender of one side."""
    with output.open("w") as log, redis.Redis.from_url(url) as client:
        process = subprocess.Popen(
            command(system, "sender", side, url), cwd=ROOT, stdin=subprocess.PIPE, stdout=log, stderr=log, text=True
        )
        try:
            yield Sender(process, client, output)
        finally:
            process.kill()
            process.communicate()


def measure_side(
    system: str, side: str, tasks: int, server: EmbeddedValkey, engine: LocalEngine, folder: Path
) -> float:
    """Microseconds of CPU of the worker per task."""
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
    logs = [folder / f"{system}-{side}-{role}.log" for role in ("worker", "sender")]
    with (
        worker(system, side, server.url, engine, logs[0]) as (group, has_ended),
        sender(system, side, server.url, logs[1]) as sends,
    ):
        try:
            sends.batch(WARM_UP, has_ended)
            before = group_cpu_seconds(group)
            sends.batch(tasks, has_ended)
            return (group_cpu_seconds(group) - before) / tasks * 1e6
        except AssertionError as failure:
            failure.add_note(logs[0].read_text()[-2000:])
            raise


def measure(systems: list[str], rounds: int, tasks: int) -> dict[str, dict[str, Any]]:
    """All rounds of all systems."""
    found: dict[str, dict[str, list[float]]] = {system: {side: [] for side in SIDES} for system in systems}
    with LocalEngine() as engine, EmbeddedValkey() as server, tempfile.TemporaryDirectory() as folder:
        os.environ.update(engine.environment())
        for number in range(rounds):
            for system in systems:
                for side in SIDES if number % 2 == 0 else reversed(SIDES):
                    found[system][side].append(measure_side(system, side, tasks, server, engine, Path(folder)))
                    print(f"round {number + 1} of {rounds}: {system} {side} done", file=sys.stderr)
    return {system: row(sides["bare"], sides["on"]) for system, sides in found.items()}


def row(bare: list[float], on: list[float]) -> dict[str, Any]:
    """The medians of one system; added CPU and ratio are taken within each round."""
    pairs = list(zip(bare, on, strict=True))
    return {
        "bare, us": statistics.median(bare),
        "on, us": statistics.median(on),
        "added, us": statistics.median(with_all - without for without, with_all in pairs),
        "ratio": statistics.median(with_all / without for without, with_all in pairs),
        "rounds": {"bare": bare, "on": on},
    }


def table(found: dict[str, dict[str, Any]]) -> str:
    """The systems as Markdown."""
    lines = ["| | bare, µs | everything on, µs | added, µs | ratio |", "|---|---|---|---|---|"]
    for system, each in found.items():
        numbers = [f"{each[name]:,.0f}" for name in ("bare, us", "on, us", "added, us")]
        lines.append(f"| {system} | {' | '.join(numbers)} | {each['ratio']:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=SYSTEMS, action="append", help="one system; may be given several times")
    parser.add_argument("--rounds", type=int, default=5, help="workers per system and side")
    parser.add_argument("--tasks", type=int, default=2000, help="tasks of a worker, a multiple of 50")
    parser.add_argument("--quick", action="store_true", help="one round of 100 tasks, to see that everything works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="store the numbers")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    options = parser.parse_args()
    rounds, tasks = (1, 100) if options.quick else (options.rounds, options.tasks)
    found = measure(options.only or list(SYSTEMS), rounds, tasks)
    print(table(found))
    if options.json:
        options.json.write_text(json.dumps({"rounds": rounds, "tasks": tasks, "systems": found}, indent=1) + "\n")
    if options.write:
        write(PAGE, table(found), START, END)


if __name__ == "__main__":
    main()
