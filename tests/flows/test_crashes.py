"""Nothing lost, nothing twice, wherever a worker dies. ``python -m tests.flows.crashes`` prints the whole matrix."""

import pytest

from mageflow.testing.valkey import EmbeddedValkey
from tests.flows.crashes import SCENARIOS, Scenario, crash_once


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # who dies closes no connection
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.name)
async def test_a_flow_survives_a_worker_that_dies_at_any_call(
    valkey: EmbeddedValkey, scenario: Scenario, after: bool
) -> None:
    """The flow ends as it should, no settled body runs again, and each callback succeeds once."""
    _, calls = await crash_once(valkey.url, scenario, 0, after=False, namespace="probe")
    for at in range(1, calls + 1):
        verdict, _ = await crash_once(valkey.url, scenario, at, after, f"n{at}")
        assert not verdict.problem, f"died {verdict.point} (call {at}): {verdict.problem}"
