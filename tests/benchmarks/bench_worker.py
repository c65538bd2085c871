"""What mageflow costs a worker: the same task on the bare SDK and on `Mageflow`, on the same engine in the same run.

Run: ``python -m tests.benchmarks.bench_worker`` (three minutes; ``--json`` for programs, ``--rounds 1`` for a look).

The sides of `worker_sides` alternate, so that what the machine does meanwhile hits all. ``raw`` and ``metrics`` run the
bulk only, ``scripts`` runs one after another only. The process that starts the runs is the same kind of client as the
worker's, in each round a new one; that of ``raw`` is mageflow's, so that its runs carry the same metadata.
``--beside FOLDER`` also measures the mageflow in that folder, in the same rounds on the same servers. Printed, not
asserted.
"""

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.benchmarks.beside import environment_of
from tests.benchmarks.processes import group_cpu_seconds
from tests.benchmarks.worker_sides import WORKER, Message, make

if TYPE_CHECKING:
    from mageflow.engine import LocalEngine

MODULE = "tests.benchmarks.bench_worker"
WITHOUT_MAGEFLOW = ("bare", "raw", "scripts")
"""Sides that another package of mageflow does not change."""
SIDES = (*WITHOUT_MAGEFLOW, "metrics", "mageflow")
BULK_ONLY, SINGLE_ONLY = ("raw", "metrics"), ("scripts",)
BEFORE = "before: "
"""Begins the names of the sides that have the package of ``--beside``."""
IMPORTS = {
    "import and make a client": {
        "bare": "import hatchet_sdk; hatchet_sdk.Hatchet()",
        "mageflow": "import hatchet_sdk, mageflow; mageflow.Mageflow(hatchet_sdk.Hatchet())",
    },
    "import and make a client with a Redis": {
        "bare": "import hatchet_sdk, redis.asyncio as r; hatchet_sdk.Hatchet(); r.Redis.from_url('redis://127.0.0.1:1')",
        "mageflow": "import hatchet_sdk, mageflow; mageflow.Mageflow(hatchet_sdk.Hatchet(), 'redis://127.0.0.1:1')",
    },
}
"""Programs by measure and side."""


class Side:
    """One side's measurements over all rounds."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}

    def add(self, name: str, value: float) -> None:
        """Note one round's value."""
        self.values.setdefault(name, []).append(value)

    def median(self, name: str) -> float | None:
        """The median over the rounds, or None where it was not measured."""
        return statistics.median(self.values[name]) if name in self.values else None


async def measure_round(side: str, redis_url: str, pid: int, options: argparse.Namespace) -> dict[str, float]:
    """Measure one worker that has just started, with a client of the same kind."""
    client, task = make("mageflow" if side == "raw" else side, sys.stderr, redis_url, name=f"bench-{side}")
    found: dict[str, float] = {}

    async def bulk(count: int) -> None:
        await task.aio_run_many([task.create_bulk_run_item(Message(x=index)) for index in range(count)])

    async def median_ms(run: Callable[[], Awaitable[Any]], count: int) -> float:
        took: list[float] = []
        for _ in range(count):
            before = time.perf_counter()
            await run()
            took.append((time.perf_counter() - before) * 1000)
        return statistics.median(took)

    async def with_cpu(name: str, count: int, work: Awaitable[Any]) -> Any:
        before = group_cpu_seconds(pid)
        result = await work
        found[name] = (group_cpu_seconds(pid) - before) / count * 1000
        return result

    await bulk(20)  # connections, caches, scripts
    if side not in SINGLE_ONLY:
        before = time.perf_counter()
        await with_cpu("bulk: worker CPU per run, ms", options.runs, bulk(options.runs))
        found["bulk: runs per second"] = options.runs / (time.perf_counter() - before)
    if side in BULK_ONLY:
        return found
    singles = options.singles
    single = median_ms(lambda: task.aio_run(Message(x=1)), singles)
    found["single run: median round trip, ms"] = await with_cpu("single run: worker CPU, ms", singles, single)
    if side == "mageflow":
        signature = await client.sign(task, x=1)
        await signature.aio_run()
        signed = median_ms(signature.aio_run, singles)
        found["signed run: median round trip, ms"] = await with_cpu("signed run: worker CPU, ms", singles, signed)
    return found


def drive(side: str, redis_url: str, pid: int, options: argparse.Namespace, environment: Mapping[str, str]) -> Any:
    """Measure one worker from a process of its own, which has the worker's package too. Returns its numbers."""
    sizes = ["--runs", str(options.runs), "--singles", str(options.singles)]
    command = [sys.executable, "-m", MODULE, "--drive", side, redis_url, str(pid), *sizes]
    done = subprocess.run(command, check=True, env={**os.environ, **environment}, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def import_seconds(program: str, environment: dict[str, str]) -> tuple[float, float]:
    """How long a program takes until it has a client, by the wall clock and by the CPU's."""
    before, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    return time.perf_counter() - before, cpu


def check_the_log(output: Path, *, is_other: bool) -> None:
    """Everything is on only if the worker's JSON log is there, in place of the lines of the SDK.

    An earlier mageflow may write those as well: that is a part of its cost.
    """
    text = output.read_text()
    if "mageflow.task.finished" not in text:
        raise AssertionError("the worker logged nothing")
    if "start step" in text and not is_other:
        raise AssertionError("the worker wrote the lines of the SDK too")


class Kind(NamedTuple):
    """What takes turns in a round."""

    name: str
    side: str
    environment: Mapping[str, str]


class Benchmark:
    """All rounds of all sides.

    A side of the other package that fails ends the turns of that package. Its ``results`` are then not whole.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.kinds = [Kind(side, side, {}) for side in options.sides]
        if options.beside:
            other = environment_of(options.beside)
            self.kinds += [
                Kind(f"{BEFORE}{side}", side, other) for side in options.sides if side not in WITHOUT_MAGEFLOW
            ]
        self.results = {name: Side() for name in (*SIDES, *(kind.name for kind in self.kinds))}

    @property
    def has_before(self) -> bool:
        """Whether the other package has taken part to the end."""
        return any(kind.environment for kind in self.kinds)

    @contextmanager
    def allowing(self, kind: Kind) -> Generator[None]:
        """Let the other package fail."""
        from mageflow.errors import EngineError

        try:
            yield
        except (EngineError, AssertionError, subprocess.CalledProcessError) as error:
            if not kind.environment:
                raise
            print(f"{kind.name} failed: {error}\n{getattr(error, 'stderr', None) or ''}", file=sys.stderr)
            self.kinds = [each for each in self.kinds if not each.environment]

    def measure_imports(self, environment: dict[str, str]) -> None:
        """Take the time of programs that import a package and make a client."""
        for number in range(self.options.imports + 1 if self.options.imports else 0):
            for measured, programs in IMPORTS.items():
                for kind in [each for each in self.kinds if each.side in programs]:
                    with self.allowing(kind):
                        wall, cpu = import_seconds(programs[kind.side], environment | dict(kind.environment))
                        if number:  # the first fills the disk's cache
                            self.results[kind.name].add(f"{measured}: wall, s", wall)
                            self.results[kind.name].add(f"{measured}: CPU, s", cpu)

    async def measure_worker(self, kind: Kind, engine: "LocalEngine", redis_url: str, output: Path) -> None:
        """Start a worker, send it runs, and stop it."""
        from mageflow.testing import WorkerProcess

        environment = kind.environment
        worker = WorkerProcess(engine, WORKER, kind.side, redis_url, output=output, environment=environment)
        await worker.aio_start(300)
        try:
            for name, value in drive(kind.side, redis_url, worker.pid, self.options, environment).items():
                self.results[kind.name].add(name, value)
        finally:
            await worker.aio_stop()
        if kind.side in ("mageflow", "raw"):
            check_the_log(output, is_other=bool(environment))

    async def measure(self) -> None:
        """Measure imports, then workers."""
        from mageflow.engine import LocalEngine
        from mageflow.testing import EmbeddedValkey

        with LocalEngine() as engine, EmbeddedValkey() as valkey, tempfile.TemporaryDirectory() as folder:
            os.environ.update(engine.environment())
            without_redis = {**os.environ, "REDIS_URL": "", "MAGEFLOW_REDIS_URL": ""}
            # An installed package has its bytecode, a checkout may have none.
            without_redis |= {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(Path(folder, "bytecode"))}
            self.measure_imports(without_redis)
            for number in range(self.options.rounds):
                for kind in self.kinds if number % 2 == 0 else self.kinds[::-1]:
                    if kind in self.kinds:
                        output = Path(folder, f"{kind.name}-{number}.log")
                        with self.allowing(kind):
                            await self.measure_worker(kind, engine, valkey.url, output)
                        print(f"round {number + 1} of {self.options.rounds}: {kind.name} done", file=sys.stderr)


PREFIXES = {
    "mageflow": "",
    "metrics": "metrics alone, ",
    "raw": "the raw calls by hand, ",
    "scripts": "two trivial scripts, ",
}
"""What the names of the measures of a side begin with."""


def report(results: Mapping[str, Side], begin: str = "") -> list[dict[str, Any]]:
    """One row per measure: both medians, and that of the side as a ratio to the bare SDK's.

    Args:
        results: The measurements by side.
        begin: How the names of the sides begin that have the other package.
    """
    bare = results["bare"]
    rows: list[dict[str, Any]] = []
    for side, prefix in PREFIXES.items():
        ours = results[side if side in WITHOUT_MAGEFLOW else f"{begin}{side}"]
        for name in ours.values:
            beside = bare.median(name) or bare.median(name.replace("signed", "single"))
            mine = ours.median(name)
            assert mine is not None
            rows.append(
                {
                    "measure": f"{prefix}{name}",
                    "bare": beside,
                    "mageflow": mine,
                    "ratio": mine / beside if beside else None,
                    "rounds": {"bare": bare.values.get(name, []), "mageflow": ours.values[name]},
                }
            )
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), caption_justify="left")
    table.add_column("medians of all rounds")
    for heading in ("bare SDK", "mageflow", "ratio", "spread of mageflow"):
        table.add_column(heading, justify="right")
    for row in rows:
        own = row["rounds"]["mageflow"]
        table.add_row(
            row["measure"],
            f"{row['bare']:.2f}" if row["bare"] is not None else "",
            f"{row['mageflow']:.2f}",
            f"{row['ratio']:.2f}" if row["ratio"] is not None else "",
            f"{min(own):.2f} to {max(own):.2f}",
        )
    console = Console()
    console.print(table)
    console.print("Signed runs stand beside the bare SDK's single runs: it has no signed ones.", style="dim")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4, help="workers per side")
    parser.add_argument("--runs", type=int, default=500, help="runs in one bulk")
    parser.add_argument("--singles", type=int, default=100, help="runs one after another")
    parser.add_argument("--imports", type=int, default=5, help="programs started per side")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES, help="all unless given")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--drive", nargs=3, metavar=("SIDE", "URL", "PID"), help=argparse.SUPPRESS)
    parser.add_argument("--beside", metavar="FOLDER", help="measure the mageflow in this folder too")
    options = parser.parse_args()
    if options.drive:
        side, redis_url, pid = options.drive
        print(json.dumps(asyncio.run(measure_round(side, redis_url, int(pid), options))))
        return
    benchmark = Benchmark(options)
    asyncio.run(benchmark.measure())
    rows = report(benchmark.results)
    before = {"rows": report(benchmark.results, BEFORE)} if benchmark.has_before else None
    if options.json:
        sizes = {"rounds": options.rounds, "runs": options.runs, "singles": options.singles}
        print(json.dumps({**sizes, "rows": rows, "before": before}))
        return
    show(rows)
    if before:
        print(f"with the mageflow in {options.beside}:")
        show(before["rows"])


if __name__ == "__main__":
    main()
