"""A bounded part of ``python -m tests.store.fuzz``: damaged records end in typed errors, within bounded time."""

import asyncio

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mageflow.testing.valkey import EmbeddedValkey
from tests.store.fuzz import fuzz


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seeds=st.lists(st.integers(0, 2**48), min_size=10, max_size=20))
def test_damaged_records_end_in_typed_errors(valkey_server: EmbeddedValkey, seeds: list[int]) -> None:
    """Wrong types, broken JSON, numbers out of range, foreign versions: no untyped error, and no operation is slow."""
    left = list(seeds)
    counts = asyncio.run(fuzz(valkey_server.url, lambda: left.pop() if left else None))
    assert counts.untyped == []
    assert counts.operations > 0
