"""A bounded part of ``python -m tests.chaos``: every flow ends as it must, and no body that succeeded runs again."""

import re
from pathlib import Path

import pytest

from tests.chaos.faults import FAULTS
from tests.chaos.run import run

FLOWS = 10
BY_NAME = {each.name: each for each in FAULTS}


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("fault", ["no-replicas", "kill-redis", "damaged-records"])
async def test_flows_end_as_they_must(fault: str) -> None:
    """Chains, swarms and both in each other, with callbacks, on two worker processes."""
    row = await run(BY_NAME[fault], FLOWS, seed=1)
    assert row.problems == []
    assert (row.flows, row.done, row.lost, row.doubled, row.stuck) == (FLOWS, FLOWS, 0, 0, 0)
    assert row.is_right


def test_every_fault_is_in_the_table_of_the_page(root: Path) -> None:
    """``docs/faults.md`` has the row of each fault, with nothing lost, doubled or stuck."""
    page = (root / "docs" / "faults.md").read_text()
    for fault in FAULTS:
        found = re.search(rf"^\| {re.escape(fault.text)} \|(.+)\|$", page, re.MULTILINE)
        assert found, fault.text
        flows, done, lost, doubled, stuck, _ = (int(each) for each in found[1].split("|"))
        assert flows == done >= 100
        assert lost == doubled == stuck == 0
