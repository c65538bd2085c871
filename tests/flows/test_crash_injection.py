"""Nothing lost, nothing twice, wherever a worker dies. ``python -m tests.flows.crash_injection`` tries every point."""

from pathlib import Path

import pytest

from tests.flows.crash_injection.cases import SIMULATED, Case, Sample, Stream
from tests.flows.crash_injection.processes import kill_workers
from tests.flows.crash_injection.report import by_place
from tests.flows.crash_injection.scenarios import Scenario
from tests.flows.crash_injection.simulation import simulate

WORKERS = 24


class EveryCall:
    """Every call of one scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self._stream = Stream(scenario, "call")
        self._cases = self._stream.cases()

    def next(self) -> Case | None:
        return next(self._cases, None)

    def done(self, case: Case) -> None:
        self._stream.note(case)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a crash closes no connection
@pytest.mark.parametrize("scenario", SIMULATED, ids=lambda each: each.name)
async def test_a_flow_survives_a_crash_at_any_call(tmp_path: Path, scenario: Scenario) -> None:
    """Before and after each call, and inside each task function: the flow ends as it must, callbacks run once."""
    found = await simulate(tmp_path, EveryCall(scenario))
    assert not found.wrong
    assert found.deaths == len(found.notes) == len(found.cases) - 2
    assert {note["when"] for note in found.notes} == {"before", "after", "inside"}


@pytest.mark.slow
async def test_flows_end_as_they_must_though_forty_workers_die(tmp_path: Path) -> None:
    """At calls, at await points and by SIGKILL: nothing is lost, no settled task runs again, callbacks run once."""
    found = await kill_workers(tmp_path, Sample(seed=1, points=42, kills=8), WORKERS)
    print(f"\n{by_place(found)}\n{found.deaths} deaths, {found.seconds:.0f} s")
    assert not found.wrong
    assert found.deaths >= 40
