"""A bounded part of ``python -m tests.store.differential``: both texts of a usual decision are one decision."""

import asyncio

from mageflow.testing.valkey import EmbeddedValkey
from tests.store.differential import compare
from tests.store.differential_locks import LockStory

FOUND = (1030, 1052, 1149, 1272)
"""Stories that once differed: the results, the live members or the outbox have another type."""
FOUND_OF_LOCKS = (7, 10, 14, 42)
"""As above: the owners, the members, the last token or the locks."""


def test_both_texts_answer_and_store_the_same(valkey_server: EmbeddedValkey) -> None:
    """Random stories of runs, suspension and damage, and those that once differed."""
    found, answered, calls = asyncio.run(compare(valkey_server.url, [*FOUND, *range(24)]))
    assert found == []
    assert answered["admit"] > calls["admit"] / 10
    assert answered["settle"] > calls["settle"] / 10


def test_both_texts_of_the_lock_scripts_do(valkey_server: EmbeddedValkey) -> None:
    """Random stories of requests, releases, renewals, deadlocks and damage, and those that once differed."""
    found, answered, calls = asyncio.run(compare(valkey_server.url, [*FOUND_OF_LOCKS, *range(100, 124)], LockStory))
    assert found == []
    assert answered["lock_acquire"] > calls["lock_acquire"] / 10
    assert answered["lock_release"] > calls["lock_release"] / 10
