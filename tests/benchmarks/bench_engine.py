"""What a run of the bare SDK costs on the local engine, and which part of it is the SDK's own.

Run: ``python -m tests.benchmarks.bench_engine``. Engine, worker and sender are three processes, so that the CPU time
of each is read from the system. Worker and sender are nothing but the SDK.
"""

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from mageflow.engine import LocalEngine
from mageflow.testing import WorkerProcess
from tests.benchmarks.processes import cpu_seconds, group_cpu_seconds
from tests.benchmarks.worker_sides import WORKER, Message, make


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Round trip of single runs, runs per second in bulk, and whose CPU time a run in bulk is."""
    trips: list[float] = []
    speeds: list[float] = []
    used: dict[str, list[float]] = {"engine": [], "worker": [], "sender": []}
    with LocalEngine() as engine, tempfile.TemporaryDirectory() as folder:
        os.environ.update(engine.environment())
        _, task = make("bare", None, "")
        output = Path(folder, "worker.log")
        worker = WorkerProcess(engine, WORKER, "bare", "redis://127.0.0.1:1", output=output)
        await worker.aio_start(300)

        def spent() -> dict[str, float]:
            return {
                "engine": cpu_seconds(engine.pid),
                "worker": group_cpu_seconds(worker.pid),
                "sender": time.process_time(),
            }

        async def bulk(count: int) -> None:
            await task.aio_run_many([task.create_bulk_run_item(Message(x=index)) for index in range(count)])

        try:
            await bulk(20)  # connections and caches
            for _ in range(options.rounds):
                before, began = spent(), time.perf_counter()
                await bulk(options.runs)
                speeds.append(options.runs / (time.perf_counter() - began))
                for name, seconds in spent().items():
                    used[name].append((seconds - before[name]) / options.runs * 1000)
                for _ in range(options.singles):
                    began = time.perf_counter()
                    await task.aio_run(Message(x=1))
                    trips.append((time.perf_counter() - began) * 1000)
        finally:
            await worker.aio_stop()
    cpu = {name: statistics.median(values) for name, values in used.items()}
    return {
        "round trip, ms": statistics.median(trips),
        "runs per second": statistics.median(speeds),
        "CPU of a run, ms": cpu,
        "share of the SDK, %": (cpu["worker"] + cpu["sender"]) / sum(cpu.values()) * 100,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=500, help="runs in one bulk")
    parser.add_argument("--singles", type=int, default=50, help="runs one after another, per round")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    print(json.dumps(asyncio.run(measure(options)), indent=None if options.json else 1))


if __name__ == "__main__":
    main()
