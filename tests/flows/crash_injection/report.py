"""The findings, as tables."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.flows.crash_injection.cases import Case
from tests.flows.crash_injection.scenarios import SCENARIOS
from tests.flows.crash_injection.verify import Body, RedisHistory, Verdict, verify


@dataclass
class Found:
    """Everything that is known when all cases are over."""

    cases: list[Case] = field(default_factory=list)
    notes: list[dict[str, Any]] = field(default_factory=list)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    leaked: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def verify(self, folder: Path, journal: Sequence[Body]) -> None:
        """Verify every case, from the append-only file in the folder and the task functions that ran."""
        history, by_record = RedisHistory.read(folder), defaultdict(list)
        for body in journal:
            by_record[body.record].append(body)
        self.verdicts = {case.name: verify(case.name, case.scenario, history, by_record) for case in self.cases}

    @property
    def wrong(self) -> list[str]:
        """Problems; an empty list when every flow ended as it must."""
        problems = [f"{case.name}: {case.problem}" for case in self.cases if case.problem]
        problems += [f"{name}: {each}" for name, verdict in self.verdicts.items() for each in verdict.problems]
        return problems + [f"no TTL: {key}" for key in self.leaked]

    @property
    def deaths(self) -> int:
        """Number of deaths."""
        return sum(case.deaths for case in self.cases)


def by_place(found: Found) -> str:
    """One row per kind and place of death, as Markdown."""
    rows: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    by_case: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for note in found.notes:
        by_case[note["case"]].append(note)
    for case in found.cases:
        places = [
            (
                f"{each['how']} {each['when'].split()[0]} {'a call' if each['kind'] == 'call' else 'an await'}",
                each["place"],
            )
            for each in by_case[case.name]
        ]
        places += [("SIGKILL", "a random moment")] * case.killed
        verdict = found.verdicts[case.name]
        for place in places:
            rows[place]["deaths"] += 1
        for place in set(places):
            rows[place].update(
                flows=1,
                expected=verdict.as_expected and not case.problem,
                again=verdict.ran_again,
                misfired=verdict.misfired,
            )
    lines = [
        "| kind of death | place | deaths | flows | ended as expected | bodies again after success | callbacks ≠ 1 |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for (kind, place), counts in sorted(rows.items()):
        figures = (counts[name] for name in ("deaths", "flows", "expected", "again", "misfired"))
        lines.append(f"| {kind} | {place} | {' | '.join(map(str, figures))} |")
    return "\n".join([*lines, _sum_row(found)])


def _kind_of_death(note: dict[str, Any]) -> str:
    return f"{note['how']} {note['when'].split()[0]} {'a call' if note['kind'] == 'call' else 'an await'}"


def _sum_row(found: Found) -> str:
    died = [case for case in found.cases if case.deaths]
    verdicts = [found.verdicts[case.name] for case in died]
    expected = sum(found.verdicts[case.name].as_expected and not case.problem for case in died)
    again, misfired = sum(each.ran_again for each in verdicts), sum(each.misfired for each in verdicts)
    return f"| **all** | | **{found.deaths}** | **{len(died)}** | **{expected}** | **{again}** | **{misfired}** |"


def by_scenario(found: Found) -> str:
    """One row per scenario."""
    lines = [
        "| flow | deaths | flows | ended as expected | bodies | run again after success | callbacks fired ≠ 1 |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for scenario in SCENARIOS:
        cases = [case for case in found.cases if case.scenario is scenario and case.deaths]
        verdicts = [found.verdicts[case.name] for case in cases]
        figures = (
            sum(case.deaths for case in cases),
            len(cases),
            sum(found.verdicts[case.name].as_expected and not case.problem for case in cases),
            sum(each.bodies for each in verdicts),
            sum(each.ran_again for each in verdicts),
            sum(each.misfired for each in verdicts),
        )
        lines.append(f"| {scenario.name} | {' | '.join(map(str, figures))} |")
    return "\n".join(lines)
