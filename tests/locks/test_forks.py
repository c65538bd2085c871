"""Locks in a forked child: it has locks of its own, and those of its parent stay with the parent."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from mageflow.testing.valkey import EmbeddedValkey

CASES = ("preload", "thread", "program_end", "leaving", "synchronous_body")
CLIENTS = ("url", "asyncio", "synchronous", "single")
Ended = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def programs(
    request: pytest.FixtureRequest, valkey_server: EmbeddedValkey, root: Path
) -> Iterator[dict[Any, Future[Ended]]]:
    """The programs of all selected cases, each with locks of its own: they wait for ten seconds, five side by side."""

    def run(case: str, client: str) -> Ended:
        command = [sys.executable, "-m", "tests.locks.fork_main", case, client, valkey_server.url]
        return subprocess.run(command, check=False, cwd=root, capture_output=True, text=True, timeout=120)

    names = {item.name for item in request.session.items if item.path == request.path}
    with ThreadPoolExecutor(5) as pool:
        yield {
            (case, client): pool.submit(run, case, client)
            for case, client in product(CASES, CLIENTS)
            if any(name.endswith(f"[{case}-{client}]") for name in names)
        }


@pytest.mark.slow
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("case", CASES)
def test_locks_in_a_forked_child(programs: dict[Any, Future[Ended]], case: str, client: str) -> None:
    """They are granted, renewed and refused as in any other process, and the parent's lease is untouched."""
    ended = programs[case, client].result()
    expected = '"child": true, "parents": "{}", "status": 0, "parent": true'
    assert expected.format("locked" if case == "preload" else "timeout") in ended.stdout, ended.stderr
