"""Locks in a forked child: it has locks of its own, and those of its parent stay with the parent."""

import subprocess
import sys
from pathlib import Path

import pytest

from mageflow.testing.valkey import EmbeddedValkey


@pytest.mark.slow
@pytest.mark.parametrize("client", ["url", "asyncio", "synchronous", "single"])
@pytest.mark.parametrize("case", ["preload", "thread", "program_end", "leaving", "synchronous_body"])
def test_locks_in_a_forked_child(valkey: EmbeddedValkey, root: Path, case: str, client: str) -> None:
    """They are granted, renewed and refused as in any other process, and the parent's lease is untouched."""
    command = [sys.executable, "-m", "tests.locks.fork_main", case, client, valkey.url]
    ended = subprocess.run(command, check=False, cwd=root, capture_output=True, text=True, timeout=120)
    expected = '"child": true, "parents": "{}", "status": 0, "parent": true'
    assert expected.format("locked" if case == "preload" else "timeout") in ended.stdout, ended.stderr
