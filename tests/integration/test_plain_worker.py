"""A worker of plain tasks loads only what it uses, and what it loads later works as if it had been there."""

from pathlib import Path
from typing import Any

import pytest
from hatchet_sdk import Hatchet

pytestmark = pytest.mark.slow

NO_REDIS = {"MAGEFLOW_REDIS_URL": "", "REDIS_URL": ""}


async def result_of(name: str) -> dict[str, Any]:
    """Run a task of the worker process, and wait for its result."""
    return dict(await Hatchet().stubs.task(name=name).aio_run())


@pytest.mark.new_interpreters
async def test_a_plain_worker_loads_only_what_it_uses(mageflow_worker: Any) -> None:
    """No redis-py without a Redis, and no structlog before the program imports it.

    Then its first records have the fields of the attempt, its functions remove them, and so do those of later attempts.
    """
    mageflow_worker(Path(__file__).with_name("plain_worker.py"), environment=NO_REDIS)
    packages = set((await result_of("loaded"))["packages"])
    first, second = await result_of("loads-structlog"), await result_of("loads-structlog")

    assert {"mageflow", "hatchet_sdk", "prometheus_client"} <= packages
    assert packages & {"redis", "hiredis", "structlog", "rich", "pygments", "click"} == set()
    assert [first["was_loaded"], second["was_loaded"]] == [False, True]
    for mine, cleared in (first["records"], second["records"]):
        assert (mine["event"], mine["task"], mine["attempt"]) == ("mine", "loads-structlog", 1)
        assert cleared == {"event": "cleared", "log_level": "info"}
    assert first["records"][0]["run_id"] != second["records"][0]["run_id"]
