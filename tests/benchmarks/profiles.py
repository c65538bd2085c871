"""Where the time of a free lock and of an import goes: ``python -m tests.benchmarks --profile`` (a minute).

The lock is sampled by CPU time inside the process that acquires and releases it. The import is what ``python -X
importtime`` prints of modules that the bare SDK does not load, from bytecode, as an installed package has it.
"""

import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

from mageflow.testing.valkey import EmbeddedValkey
from tests.benchmarks.bench_locks import ours, trivial

PROGRAMS: Final = {
    "without Redis": "import hatchet_sdk, mageflow.client",
    "with a Redis": "import hatchet_sdk, redis.asyncio, mageflow.client.services, mageflow.store.redis.round_trips",
}
BARE: Final = {"without Redis": "import hatchet_sdk", "with a Redis": "import hatchet_sdk, redis.asyncio"}
_LINE: Final = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)")

Samples = Counter[tuple[str, str]]
"""How often a function ran when its process was looked at: by whose it is, and its name."""


async def lock_samples(rounds: int) -> dict[str, Samples]:
    """Where the CPU time of free locks goes, and that of as many pairs of scripts that do nothing."""
    found: dict[str, Samples] = {}
    with EmbeddedValkey() as server:
        for name, open_ in (("free lock", ours), ("two trivial scripts", trivial)):
            async with open_(server.url) as enter:
                for _ in range(100):  # opens connections and loads scripts
                    async with enter("alone"):
                        pass
                with sampled() as samples:
                    for _ in range(rounds):
                        async with enter("alone"):
                            pass
            found[name] = samples
    return found


@contextmanager
def sampled() -> Generator[Samples]:
    """Count, each millisecond of CPU time at most, the function that runs. Code in C counts for its caller."""
    samples: Samples = Counter()

    def sample(number: int, frame: FrameType | None) -> None:
        if frame is not None:
            code = frame.f_code
            samples[owner_of(code.co_filename), f"{code.co_qualname} ({Path(code.co_filename).name})"] += 1

    before = signal.signal(signal.SIGPROF, sample)
    signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)
    try:
        yield samples
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def owner_of(file: str) -> str:
    """Whose code a file is: a room of mageflow, or a library."""
    if "site-packages" not in file and "/mageflow/" in file:
        rooms = file.rpartition("/mageflow/")[2].split("/")
        return "mageflow." + ".".join(rooms[: 2 if rooms[0] == "store" else 1])
    if "/redis/" in file:
        return "redis-py"
    return "asyncio" if "/asyncio/" in file or file.endswith("selectors.py") else "Python"


def lock_tables(found: Mapping[str, Samples]) -> str:
    """Whose code takes the time, and the functions that take most of it, as shares of a free lock."""
    whole = found["free lock"].total()
    tables: list[str] = []
    for head, place, rows in (("code of", 0, 10), ("function", 1, 15)):
        sums: dict[str, Counter[str]] = {name: Counter() for name in found}
        for name, samples in found.items():
            for key, count in samples.items():
                sums[name][key[place]] += count
        shown = [name for name, _ in sums["free lock"].most_common(rows)]
        lines = [f"| {head} | {' | '.join(found)} |", f"|---|{'---|' * len(found)}"]
        for name in shown:
            title = name if place == 0 else f"`{name}`"
            lines.append(f"| {title} | {' | '.join(f'{each[name] / whole * 100:.1f} %' for each in sums.values())} |")
        if place == 0:
            lines.append(
                f"| together | {' | '.join(f'{each.total() / whole * 100:.0f} %' for each in sums.values())} |"
            )
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def import_times(program: str, environment: dict[str, str]) -> dict[str, float]:
    """Milliseconds of each module itself."""
    command = [sys.executable, "-X", "importtime", "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return {found[2]: int(found[1]) / 1000 for found in _LINE.finditer(done.stderr)}


def import_rows(rounds: int) -> dict[str, dict[str, tuple[int, float]]]:
    """Modules and milliseconds by room, the lowest of the rounds, for what the bare SDK does not load."""
    rows: dict[str, dict[str, tuple[int, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder, "PYTHONDONTWRITEBYTECODE": ""}
        for name, program in PROGRAMS.items():
            lowest: dict[str, float] = {}
            bare: dict[str, float] = {}
            for _ in range(rounds + 1):
                for module, spent in import_times(BARE[name], environment).items():
                    bare[module] = min(spent, bare.get(module, spent))
                for module, spent in import_times(program, environment).items():
                    lowest[module] = min(spent, lowest.get(module, spent))
            extra = {module: spent for module, spent in lowest.items() if module not in bare}
            count: Counter[str] = Counter()
            sums: dict[str, float] = {}
            for module, spent in extra.items():
                room = ".".join(module.split(".")[:2]) if module.startswith("mageflow.") else module.partition(".")[0]
                count[room] += 1
                sums[room] = sums.get(room, 0.0) + spent
            rows[name] = {room: (count[room], sums[room]) for room in count}
            rows[name]["the bare SDK" if name == "without Redis" else "the bare SDK and redis-py"] = (
                len(bare),
                sum(bare.values()),
            )
    return rows


def import_table(rows: Mapping[str, Mapping[str, tuple[int, float]]]) -> str:
    """Modules and milliseconds by room."""
    names = sorted({each for row in rows.values() for each in row}, key=lambda each: -_slowest(rows, each))
    lines = [f"| | {' | '.join(f'{each}: modules | ms' for each in rows)} |", f"|---|{'---|---|' * len(rows)}"]
    for name in names:
        if _slowest(rows, name) >= 0.5:
            cells = [f"{row[name][0]} | {row[name][1]:.1f}" if name in row else " | " for row in rows.values()]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _slowest(rows: Mapping[str, Mapping[str, tuple[int, float]]], name: str) -> float:
    return max(row[name][1] for row in rows.values() if name in row)


def main(rounds: int) -> str:
    """The tables as Markdown."""
    locks = asyncio.run(lock_samples(rounds))
    return "\n\n".join([lock_tables(locks), import_table(import_rows(max(1, rounds // 1000)))])
