"""Where the time of a free lock and of an import goes: ``python -m tests.benchmarks --profile`` (a minute).

The lock is profiled inside the process that acquires and releases it; a profiler makes calls of small functions dearer,
so its shares say where to look, not what a change gains. The import is what ``python -X importtime`` prints of modules
that the bare SDK does not load, from bytecode, as an installed package has it.
"""

import asyncio
import cProfile
import os
import pstats
import re
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any, Final, cast

from mageflow.testing.valkey import EmbeddedValkey
from tests.benchmarks.bench_locks import ours, trivial

WAITS: Final = ("poll", "select")
PROGRAMS: Final = {
    "without Redis": "import hatchet_sdk, mageflow.client",
    "with a Redis": "import hatchet_sdk, redis.asyncio, mageflow.client.services, mageflow.store.redis.round_trips",
}
BARE: Final = {"without Redis": "import hatchet_sdk", "with a Redis": "import hatchet_sdk, redis.asyncio"}
_LINE: Final = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)")

Shares = Mapping[str, float]


async def lock_profiles(rounds: int) -> dict[str, pstats.Stats]:
    """The profile of ``rounds`` locks, and of the two scripts that do nothing."""
    found: dict[str, pstats.Stats] = {}
    with EmbeddedValkey() as server:
        for name, open_ in (("free lock", ours), ("two trivial scripts", trivial)):
            async with open_(server.url) as enter:
                profile = cProfile.Profile()
                for number in range(rounds + 100):
                    if number == 100:  # before, connections are opened and scripts are loaded
                        profile.enable()
                    async with enter("alone"):
                        pass
                profile.disable()
            found[name] = pstats.Stats(profile)
    return found


def owner_of(file: str) -> str:
    """Whose code a file is: a room of mageflow, or a library."""
    if "/mageflow/" in file and "site-packages" not in file:
        rooms = file.rpartition("/mageflow/")[2].split("/")
        return "mageflow." + ".".join(rooms[:2] if rooms[0] == "store" else rooms[:1])
    if "/redis/" in file or "hiredis" in file:
        return "redis-py"
    return "asyncio" if "/asyncio/" in file else "Python"


def lock_shares(stats: pstats.Stats) -> tuple[dict[str, float], float]:
    """Microseconds of one pair by whose code takes them itself, and their sum, without waiting for the server.

    A function that is written in C counts for those that call it.
    """
    entries = cast("dict[tuple[str, int, str], tuple[int, int, float, float, Any]]", cast("Any", stats).stats)
    spent: defaultdict[str, float] = defaultdict(float)
    pairs = 1
    for (file, _, name), (_, calls, own, _, callers) in entries.items():
        if any(each in name for each in WAITS):
            continue
        if file == "~":
            for (caller, _, _), (_, _, share, _) in callers.items():
                spent[owner_of(caller)] += share
        else:
            spent[owner_of(file)] += own
        if name == "enter" and "bench_locks" in file:
            pairs = max(pairs, calls)
    return {name: seconds / pairs * 1e6 for name, seconds in spent.items()}, sum(spent.values()) / pairs * 1e6


def lock_table(found: Mapping[str, pstats.Stats]) -> str:
    """Whose code takes the time of a free lock, and of two scripts that do nothing."""
    shares = {name: lock_shares(stats) for name, stats in found.items()}
    whole = shares["free lock"][1]
    names = sorted({each for by, _ in shares.values() for each in by}, key=lambda each: -_most(shares, each))
    lines = [f"| code of | {' | '.join(shares)} |", f"|---|{'---|' * len(shares)}"]
    for name in names:
        if _most(shares, name) / whole >= 0.005:
            lines.append(
                f"| {name} | {' | '.join(f'{by.get(name, 0) / whole * 100:.1f} %' for by, _ in shares.values())} |"
            )
    return "\n".join(
        [*lines, f"| together | {' | '.join(f'{sum_ / whole * 100:.0f} %' for _, sum_ in shares.values())} |"]
    )


def _most(shares: Mapping[str, tuple[Shares, float]], name: str) -> float:
    return max(by.get(name, 0) for by, _ in shares.values())


def import_times(program: str, environment: dict[str, str]) -> dict[str, float]:
    """Milliseconds of each module itself."""
    command = [sys.executable, "-X", "importtime", "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return {found[2]: int(found[1]) / 1000 for found in _LINE.finditer(done.stderr)}


def import_rows(rounds: int) -> dict[str, dict[str, tuple[int, float]]]:
    """Modules and their milliseconds by room of mageflow, for what the bare SDK does not load. The lowest of the rounds."""
    rows: dict[str, dict[str, tuple[int, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder, "PYTHONDONTWRITEBYTECODE": ""}
        for name, program in PROGRAMS.items():
            lowest: dict[str, float] = {}
            bare = import_times(BARE[name], environment)
            for _ in range(rounds + 1):
                for module, spent in import_times(program, environment).items():
                    lowest[module] = min(spent, lowest.get(module, spent))
            extra = {module: spent for module, spent in lowest.items() if module not in bare}
            count, sums = Counter[str](), Counter[str]()
            for module, spent in extra.items():
                room = ".".join(module.split(".")[:2]) if module.startswith("mageflow.") else module.partition(".")[0]
                count[room] += 1
                sums[room] += spent  # pyright: ignore[reportArgumentType] a Counter adds floats too
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
    """Both tables as Markdown."""
    locks = asyncio.run(lock_profiles(rounds))
    return "\n\n".join([lock_table(locks), import_table(import_rows(max(1, rounds // 200)))])
