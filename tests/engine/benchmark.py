"""What the engine costs: ``python -m tests.engine.benchmark``. Prints; asserts nothing.

Start to ready, round trip of one task through the SDK, runs per second through one SDK worker, and the share of the
processor time that is the engine's.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from hatchet_sdk import Hatchet

from mageflow.engine import LocalEngine
from tests.engine.sdk_tasks import Number, build

ROOT = Path(__file__).parent.parent.parent
ROUND_TRIPS = 100
RUNS = 2000


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(int(ticks) for ticks in fields[11:13]) / os.sysconf("SC_CLK_TCK")


async def measure(engine: LocalEngine, client: Hatchet) -> None:
    """Wait for the worker, then measure."""
    workload = build(client)
    while not any(row.status == "ACTIVE" for row in (await client.workers.aio_list()).rows or []):
        await asyncio.sleep(0.1)
    await workload.double.aio_run(Number(n=1))
    trips: list[float] = []
    for n in range(ROUND_TRIPS):
        started = time.perf_counter()
        await workload.double.aio_run(Number(n=n))
        trips.append((time.perf_counter() - started) * 1000)
    trips.sort()
    print(f"round trip        median {statistics.median(trips):.1f} ms, p95 {trips[int(len(trips) * 0.95)]:.1f} ms")
    engine_before, all_before, started = cpu_seconds(engine.pid), sum(os.times()[:4]), time.perf_counter()
    items = [workload.double.create_bulk_run_item(Number(n=n)) for n in range(RUNS)]
    await workload.double.aio_run_many(items)
    seconds = time.perf_counter() - started
    used = cpu_seconds(engine.pid) - engine_before
    print(f"throughput        {RUNS / seconds:.0f} runs/s ({RUNS} runs in {seconds:.1f} s, one worker)")
    print(f"engine            {used / RUNS * 1e6:.0f} us of processor time per run, {used / seconds:.0%} of one core")
    print(f"client, for scale {(sum(os.times()[:4]) - all_before) / RUNS * 1e6:.0f} us per run")


def main() -> None:
    """Start an engine and a worker, measure, stop."""
    times: list[float] = []
    for _ in range(5):
        started = time.perf_counter()
        with LocalEngine():
            times.append(time.perf_counter() - started)
    print(f"start to ready    best {min(times):.2f} s, median {statistics.median(times):.2f} s of {len(times)}")
    with LocalEngine() as engine:
        environment = {**os.environ, **engine.environment(), "PYTHONPATH": str(ROOT)}
        worker = subprocess.Popen(
            [sys.executable, "-m", "tests.engine.sdk_tasks", "benchmark"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            asyncio.run(measure(engine, engine.client()))
        finally:
            worker.terminate()
            worker.wait()


if __name__ == "__main__":
    main()
