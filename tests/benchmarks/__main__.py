"""What mageflow costs, in one table: ``python -m tests.benchmarks``. Run it alone: it takes ten minutes.

Each measure is taken beside what it is compared with, in turns, in the same run; the table shows medians.
``--json FILE`` stores the numbers, ``--before FILE`` shows stored ones beside them, and ``--write`` puts the table into
``docs/performance.md``.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parent.parent.parent
PAGE: Final = ROOT / "docs" / "performance.md"
START, END = "<!-- table: python -m tests.benchmarks --write -->", "<!-- end of the table -->"
PARTS: Final = ("worker", "locks", "idle")

Row = tuple[str, str, float]
"""What was measured, its unit, and the number."""


def run(part: str, *options: str) -> Any:
    """The JSON of one benchmark, which runs in a process of its own."""
    command = [sys.executable, "-m", f"tests.benchmarks.bench_{part}", "--json", *options]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def worker_rows(found: Mapping[str, Any]) -> list[Row]:
    """A worker beside one of the bare SDK."""
    by_name = {each["measure"]: each for each in found["rows"]}
    bulk = by_name["bulk: worker CPU per run, ms"]

    def ratio(name: str) -> float:
        return by_name[name]["ratio"]

    return [
        ("bulk run: added CPU of the worker", "µs", (bulk["mageflow"] - bulk["bare"]) * 1000),
        ("bulk run over bare: CPU", "", bulk["ratio"]),
        ("bulk run over bare: runs per second", "", ratio("bulk: runs per second")),
        ("single run over bare: CPU", "", ratio("single run: worker CPU, ms")),
        ("single run over bare: round trip", "", ratio("single run: median round trip, ms")),
        ("signed run over a bare one: CPU", "", ratio("signed run: worker CPU, ms")),
        ("import and client over bare: CPU", "", ratio("import and make a client: CPU, s")),
    ]


def lock_rows(found: Mapping[str, Any]) -> list[Row]:
    """A free lock, and one that others wait for."""
    free, server, handed = found["free lock, us"], found["free lock, server us"], found["hand-over, ms"]
    rows = [(f"free lock, acquire and release: {name}", "µs", each["p50"]) for name, each in free.items()]
    rows += [(f"free lock, CPU of the server: {name}", "µs", each) for name, each in server.items()]
    rows += [(f"hand-over with {waiters} waiting", "ms", each["mageflow"]["p50"]) for waiters, each in handed.items()]
    most = max(handed, key=int)
    return [*rows, (f"calls to Redis per waiter, {most} waiting", "", found["calls per waiter"][most])]


def idle_rows(found: Mapping[str, Any]) -> list[Row]:
    """A worker without work."""
    rows: list[Row] = []
    for name, each in found.items():
        rows += [
            (f"idle worker, {name}: scripts a minute", "", each["scripts"]),
            (f"idle worker, {name}: commands a minute", "", each["commands"]),
            (f"{each['workers']} idle workers, {name}: of one core of Redis", "%", each["percent_of_a_core"]),
        ]
    return rows


def text(value: float | None, unit: str) -> str:
    """A number with three significant digits and its unit."""
    if value is None:
        return ""
    shown = f"{value:,.0f}" if value >= 100 else f"{value:.2f}" if value < 10 else f"{value:.1f}"
    return f"{shown} {unit}".rstrip()


def table(rows: list[Row], before: Mapping[str, float]) -> str:
    """The rows as Markdown, with a column for stored numbers if there are any."""
    heads = ["", "before", "now"] if before else ["", "now"]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for name, unit, value in rows:
        cells = [name, text(before.get(name), unit), text(value, unit)] if before else [name, text(value, unit)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def write(page: Path, content: str) -> None:
    """Replace what stands between the two marks of the page."""
    head, rest = page.read_text().split(START)
    page.write_text(f"{head}{START}\n\n{content}\n\n{END}{rest.split(END)[1]}")


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, action="append", help="one part; may be given several times")
    parser.add_argument("--rounds", type=int, default=4, help="workers per side")
    parser.add_argument("--quick", action="store_true", help="few repetitions, to see that everything works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="store the numbers")
    parser.add_argument("--before", type=Path, metavar="FILE", help="show the numbers of an earlier --json beside them")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    options = parser.parse_args()
    rounds = "1" if options.quick else str(options.rounds)
    commands = {
        "worker": ["--rounds", rounds, *(["--runs", "50", "--singles", "10", "--imports", "1"] * options.quick)],
        "locks": ["--rounds", "100"] if options.quick else [],
        "idle": ["--workers", "10", "--signatures", "100"] if options.quick else [],
    }
    rows: list[Row] = []
    for part in PARTS:
        if not options.only or part in options.only:
            found = run(part, *commands[part])
            rows += {"worker": worker_rows, "locks": lock_rows, "idle": idle_rows}[part](found)
    before: dict[str, float] = json.loads(options.before.read_text()) if options.before else {}
    content = table(rows, before)
    print(content)
    if options.json:
        options.json.write_text(json.dumps({name: value for name, _, value in rows}, indent=1) + "\n")
    if options.write:
        write(PAGE, content)


if __name__ == "__main__":
    main()
