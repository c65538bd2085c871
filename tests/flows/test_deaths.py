"""Nothing lost, nothing twice, where workers really die. ``python -m tests.flows.deaths`` runs the whole matrix."""

from pathlib import Path

import pytest

from tests.flows.deaths import die
from tests.flows.mortality.cases import Sample
from tests.flows.mortality.report import table

LANES = 24


@pytest.mark.slow
async def test_flows_end_as_they_should_though_forty_workers_die(tmp_path: Path) -> None:
    """At calls, at await points and by SIGKILL: nothing is lost, no settled body runs again, callbacks fire once."""
    found = await die(tmp_path, Sample(seed=1, points=42, kills=8), LANES)
    print(f"\n{table(found)}\n{found.deaths} deaths, {found.seconds:.0f} s")
    assert not found.wrong
    assert found.deaths >= 40
