"""What mageflow costs, in one table: ``python -m tests.benchmarks``. Run it alone: it takes five minutes.

Each measure is taken beside what it is compared with, in turns, in the same run; the table shows medians.
``--beside REVISION`` measures the mageflow of an earlier commit too, in turns, and shows both and the change (fourteen
minutes). ``--json FILE`` stores the numbers, ``--before FILE`` shows stored ones beside them, and ``--write`` puts the
table into ``docs/performance.md`` and its first rows into README. ``--flame DIR`` writes flame graphs instead,
``--profile`` says where the time of a free lock and of an import goes.
"""

import argparse
import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from mageflow.testing.valkey import EmbeddedValkey
from tests.benchmarks.beside import OtherPackage, other_package, run, run_beside

ROOT: Final = Path(__file__).parent.parent.parent
PAGE: Final = ROOT / "docs" / "performance.md"
START, END = "<!-- table: python -m tests.benchmarks --write -->", "<!-- end of the table -->"
README: Final = ROOT / "README.md"
README_START, README_END = "<!-- costs: python -m tests.benchmarks --write -->", "<!-- end of the costs -->"
PICTURES: Final = ROOT / "docs" / "pictures"
FLAME_START, FLAME_END = (
    "<!-- functions: python -m tests.benchmarks --flame DIR --write -->",
    "<!-- end of the functions -->",
)
PROFILE_START, PROFILE_END = (
    "<!-- profiles: python -m tests.benchmarks --profile --write -->",
    "<!-- end of the profiles -->",
)
TURNS: Final = {"attempt": 3, "locks": 3}
"""How often each package measures a part with ``--beside``; a part that counts, or has no times of mageflow, once."""
PARTS: Final = ("worker", "attempt", "flows", "locks", "idle", "engine")

ADDED, BULK = "bulk run: added CPU of the worker", "bulk run over bare: CPU"
METRICS_ADDED, METRICS = "bulk run, metrics alone: added CPU of the worker", "bulk run over bare, metrics alone: CPU"
RAW_ADDED = "bulk run, the raw calls by hand: added CPU of the worker"
OVER_RAW = "bulk run over the raw calls: CPU"
SCRIPTS = "bare run with two trivial scripts over a bare one: CPU"
OVER_SCRIPTS = "signed run over a bare one with two trivial scripts: CPU"
SIGNED_ADDED, SIGNED = "signed run: added CPU of the worker", "signed run over a bare one: CPU"
IN_README: Final = {
    "a run in bulk, spans, logs and metrics on": (BULK, ADDED),
    "a run in bulk, metrics alone": (METRICS, METRICS_ADDED),
    "a signed run: two round trips to Redis": (SIGNED, SIGNED_ADDED),
}
"""Rows of the table in README: the rows of the page with the ratio and with the microseconds."""

Row = tuple[str, str, float]
"""What was measured, its unit, and the number."""


def worker_rows(found: Mapping[str, Any]) -> list[Row]:
    """A worker beside one of the bare SDK."""
    by_name = {each["measure"]: each for each in found["rows"]}

    def ratio(name: str) -> float:
        return by_name[name]["ratio"]

    def added(name: str) -> float:
        return (by_name[name]["mageflow"] - by_name[name]["bare"]) * 1000

    def over(name: str, limit: str) -> float:
        return by_name[name]["mageflow"] / by_name[limit]["mageflow"]

    bulk, metrics = "bulk: worker CPU per run, ms", "metrics alone, bulk: worker CPU per run, ms"
    raw, scripts = f"the raw calls by hand, {bulk}", "two trivial scripts, single run: worker CPU, ms"
    single, signed = "single run: worker CPU, ms", "signed run: worker CPU, ms"
    return [
        (ADDED, "µs", added(bulk)),
        (RAW_ADDED, "µs", added(raw)),
        (OVER_RAW, "", over(bulk, raw)),
        (METRICS_ADDED, "µs", added(metrics)),
        (BULK, "", ratio(bulk)),
        (METRICS, "", ratio(metrics)),
        ("bulk run over bare: runs per second", "", ratio("bulk: runs per second")),
        ("single run: added CPU of the worker", "µs", added(single)),
        ("single run over bare: CPU", "", ratio(single)),
        ("single run over bare: round trip", "", ratio("single run: median round trip, ms")),
        (SIGNED_ADDED, "µs", added(signed)),
        (SIGNED, "", ratio(signed)),
        (SCRIPTS, "", ratio(scripts)),
        (OVER_SCRIPTS, "", over(signed, scripts)),
        ("signed run over a bare one: round trip", "", ratio("signed run: median round trip, ms")),
        ("import and client over bare: CPU", "", ratio("import and make a client: CPU, s")),
        (
            "import and client with a Redis over bare and redis-py: CPU",
            "",
            ratio("import and make a client with a Redis: CPU, s"),
        ),
    ]


def attempt_rows(found: Mapping[str, Any]) -> list[Row]:
    """One attempt in a loop, and the same telemetry called by hand."""
    added, raw = found["everything"], found["raw"]
    return [
        ("attempt in process: added CPU", "µs", added),
        ("attempt in process, the raw calls by hand: added CPU", "µs", raw),
        ("attempt in process over the raw calls", "", added / raw),
    ]


def flow_rows(found: Mapping[str, float]) -> list[Row]:
    """Calls to Redis of flows."""
    return [(f"round trips to Redis: {name}", "", value) for name, value in found.items()]


def engine_rows(found: Mapping[str, Any]) -> list[Row]:
    """The bare SDK on the local engine."""
    return [
        ("local engine, bare SDK: round trip of a run", "ms", found["round trip, ms"]),
        ("local engine, bare SDK: runs per second, in bulk", "", found["runs per second"]),
        ("local engine, bare SDK: CPU of the engine per run", "ms", found["CPU of a run, ms"]["engine"]),
        ("local engine, bare SDK: share of the SDK in the CPU of a run", "%", found["share of the SDK, %"]),
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


ROWS: Final = {
    "worker": worker_rows,
    "attempt": attempt_rows,
    "flows": flow_rows,
    "locks": lock_rows,
    "idle": idle_rows,
    "engine": engine_rows,
}


def text(value: float | None, unit: str) -> str:
    """A number with three significant digits and its unit."""
    if value is None:
        return ""
    size = abs(value)
    shown = f"{value:,.0f}" if size >= 100 else f"{value:.2f}" if size < 10 else f"{value:.1f}"
    return f"{shown} {unit}".rstrip()


REFUSED: Final = "does not run"
"""Where the package of ``--beside`` does not run a part."""
NOW: Final = "now"


def change(before: float, now: float) -> str:
    """How much larger or smaller a number is, in percent."""
    return f"{(now / before - 1) * 100:+.0f} %" if before > 0 else ""


def table(rows: list[Row], before: Mapping[str, float | None], beside: str = "") -> str:
    """The rows as Markdown.

    Args:
        rows: What was measured.
        before: Numbers for a column of their own, if there are any; None where a part did not run.
        beside: The commit that they are of, if they were measured in the same run. Adds a column with the change.
    """
    heads = ["", *(["before" + f" (`{beside}`)" * bool(beside)] if before else []), NOW, *["change"] * bool(beside)]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for name, unit, value in rows:
        earlier = before.get(name)
        refused = name in before and earlier is None
        shown = {heads[0]: name, NOW: text(value, unit)}
        if before:
            shown[heads[1]] = REFUSED if refused else text(earlier, unit)
        if beside:
            shown["change"] = change(earlier, value) if earlier else ""
        lines.append(f"| {' | '.join(shown[head] for head in heads)} |")
    return "\n".join(lines)


def parsed(content: str) -> dict[str, dict[str, str]]:
    """The cells of each row of a table by their heads, by the first cell of the row."""
    heads, _, *rows = [[cell.strip() for cell in line.strip()[1:-1].split("|")] for line in content.splitlines()]
    return {row[0]: dict(zip(heads, row, strict=True)) for row in rows}


def cells(content: str) -> dict[str, str]:
    """The number of now of each row of a table, by the first cell of the row."""
    return {name: row[NOW] for name, row in parsed(content).items()}


def merged(before: str, after: str) -> str:
    """A written table with the rows that were measured anew; the rest of it stays.

    Rows that were measured beside another commit keep no number of it: the heads are those of ``after``.
    """
    new, heads = parsed(after), [head.strip() for head in after.splitlines()[0][1:-1].split("|")]
    rows = {**parsed(before), **new}
    lines = [f"| {' | '.join(row.get(head, '') for head in heads)} |" for row in rows.values()]
    return "\n".join([*after.splitlines()[:2], *lines])


def readme_table(content: str) -> str:
    """What README shows of a table: the rows that were measured."""
    shown = cells(content)
    lines = ["| | CPU over the bare SDK | added |", "|---|---|---|"]
    both = {name: (shown.get(ratio), shown.get(added)) for name, (ratio, added) in IN_README.items()}
    lines += [f"| {name} | {ratio} | {added} |" for name, (ratio, added) in both.items() if ratio and added]
    return "\n".join(lines)


def written(page: Path, start: str = START, end: str = END) -> str:
    """What stands between the two marks of a page."""
    return page.read_text().split(start)[1].split(end)[0].strip()


def write(page: Path, content: str, start: str = START, end: str = END) -> None:
    """Replace what stands between the two marks of the page."""
    head, rest = page.read_text().split(start)
    page.write_text(f"{head}{start}\n\n{content}\n\n{end}{rest.split(end)[1]}")


def draw_flames(folder: Path, *, seconds: int, is_written: bool) -> None:
    """Flame graphs into a folder, and with ``--write`` into the page."""
    from tests.benchmarks import flame

    recorded = flame.main(folder, seconds)
    content = flame.table(recorded)
    print(content)
    if is_written:
        write(PAGE, content, FLAME_START, FLAME_END)
        for kind in recorded:
            (PICTURES / f"flame-{kind}.svg").write_text((folder / f"{kind}.svg").read_text())


def show_profiles(*, rounds: int, is_written: bool) -> None:
    """Print where the time goes, and put it into the page with ``--write``."""
    from tests.benchmarks import profiles

    content = profiles.main(rounds)
    print(content)
    if is_written:
        write(PAGE, content, PROFILE_START, PROFILE_END)


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, action="append", help="one part; may be given several times")
    parser.add_argument("--rounds", type=int, default=4, help="workers per side")
    parser.add_argument("--quick", action="store_true", help="few repetitions, to see that everything works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="store the numbers")
    parser.add_argument("--before", type=Path, metavar="FILE", help="show the numbers of an earlier --json beside them")
    parser.add_argument(
        "--beside", metavar="REVISION", help="measure the mageflow of this commit (or in this folder) too"
    )
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    parser.add_argument("--flame", type=Path, metavar="DIR", help="write flame graphs of a worker into DIR instead")
    parser.add_argument("--profile", action="store_true", help="profile a free lock and an import instead")
    options = parser.parse_args()
    if options.profile:
        show_profiles(rounds=300 if options.quick else 10_000, is_written=options.write)
        return
    if options.flame:
        draw_flames(options.flame, seconds=5 if options.quick else 20, is_written=options.write)
        return
    with ExitStack() as stack:
        other = stack.enter_context(other_package(options.beside)) if options.beside else None
        measure_all(options, other)


def measure_all(options: argparse.Namespace, other: OtherPackage | None) -> None:
    """Measure the parts of the table."""
    rounds = "1" if options.quick else str(options.rounds)
    commands = {
        "worker": ["--rounds", rounds, *(["--runs", "50", "--singles", "10", "--imports", "1"] * options.quick)],
        "attempt": ["--rounds", "3", "--calls", "50"] if options.quick else ["--rounds", "80" if other else "150"],
        "flows": ["--items", "100"] if options.quick else [],
        "locks": ["--rounds", "100"] if options.quick else ["--rounds", "400"] if other else [],
        "engine": ["--rounds", "1", "--runs", "50", "--singles", "10"] if options.quick else [],
        "idle": ["--workers", "10", "--signatures", "100"] if options.quick else [],
    }
    rows: list[Row] = []
    earlier: dict[str, float | None] = json.loads(options.before.read_text()) if options.before else {}
    for part in [each for each in PARTS if not options.only or each in options.only]:
        found, before = measure_part(part, commands[part], other, turns=1 if options.quick else TURNS.get(part, 1))
        own = ROWS[part](found)
        rows += own
        if other is not None:
            numbers = {name: value for name, _, value in ROWS[part](before)} if before else {}
            earlier |= {name: numbers.get(name) for name, _, _ in own}
    content = table(rows, earlier, other.name if other else "")
    print(content)
    if options.json:
        options.json.write_text(json.dumps({name: value for name, _, value in rows}, indent=1) + "\n")
    if options.write:
        content = content if other else table(rows, {})
        if options.only:
            content = merged(written(PAGE), content)
        write(PAGE, content)
        write(README, readme_table(content), README_START, README_END)


def measure_part(part: str, command: list[str], other: OtherPackage | None, turns: int) -> tuple[Any, Any]:
    """What a part finds with this package, and with the other one; None where there is none or it does not run."""
    if other is None:
        return run(part, command), None
    if part == "worker":  # takes turns by itself
        found = run(part, [*command, "--beside", str(other.folder)])
        return found, found["before"]
    with EmbeddedValkey() as server:
        shared = ["--server", server.url, str(server.pid)] if part == "locks" else []
        return run_beside(part, [*command, *shared], other.folder, turns)


if __name__ == "__main__":
    main()
