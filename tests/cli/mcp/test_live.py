"""``mageflow mcp`` beside a real worker: what runs, what waits for a lock or a stagger, and broken deadlocks."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from mageflow.cli.demo.scenario import STAGGERED_TASK
from mageflow.cli.demo.shop import Order, Run, Workload
from tests.cli.mcp.assistant import Assistant, assistant
from tests.cli.top.conftest import services, workload  # noqa: F401 - fixtures

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


async def until(read: Callable[[], Awaitable[Any]], holds: Callable[[Any], Any]) -> Any:
    """Read until it is as expected, for at most 60 s."""
    async with asyncio.timeout(60):
        while not holds(found := await read()):
            await asyncio.sleep(0.1)
    return found


async def why(model: Assistant, key: str) -> list[tuple[str, str]]:
    """Why a run does not go on; empty if it is not known."""
    is_error, text = await model.text("why_is_it_waiting", key=key)
    return [] if is_error else [(each["waits_for"], each["sentence"]) for each in json.loads(text)["reasons"]]


async def lock_wait(model: Assistant) -> tuple[dict[str, Any], str] | None:
    """A request that waits for a lock, and how it is explained; None when there is none, or when it has just ended."""
    for waiter in (await model.call("list_locks"))["waiters"]:
        for what, sentence in await why(model, waiter["run_id"]):
            if what == "lock" and waiter["holder_run_id"]:
                return waiter, sentence
    return None


async def stagger(model: Assistant, work: Workload, started: list[Run]) -> str:
    """Start some staggered runs; how the first one that sleeps is explained, empty if all have ended meanwhile."""
    runs = [await work.run(work.shop.named(STAGGERED_TASK), Order(number=n, seconds=0.1)) for n in range(8)]
    started += runs
    for run in runs:
        for what, sentence in await why(model, run.run_id):
            if what == "stagger":
                return sentence
    return ""


async def test_what_runs_waits_and_was_broken(services, workload, tmp_path) -> None:  # noqa: F811
    """A run that waits for a lock is explained with the run that holds it; the deadlock is listed afterwards."""
    options = ("--redis-url", services.valkey.url, "--metrics", services.metrics_url)
    async with workload() as work, assistant(tmp_path / "err", *options) as model:
        runs = await work.deadlock(77, pay_seconds=1, pack_seconds=15)  # one waits for 14 s, then the cycle closes
        ids = {run.run_id for run in runs}
        waiter, sentence = await until(lambda: lock_wait(model), bool)
        assert {waiter["run_id"], waiter["holder_run_id"]} <= ids
        assert waiter["holder_run_id"] in sentence
        await asyncio.gather(*(run.wait(60) for run in runs))

        found = await until(lambda: model.call("recent_deadlocks"), lambda found: found["deadlocks"])
        assert found["deadlocks_total"] == 1
        assert {edge["run_id"] for edge in found["deadlocks"][0]["cycle"]} == ids

        sleeping: list[Run] = []
        explained = await until(lambda: stagger(model, work, sleeping), bool)
        assert "waits for its stagger: it sleeps" in explained
        summary = await model.call("metrics_summary")
        rows = {row["task"]: row for row in summary["tasks"]}
        assert sum(row["outcomes"].get("retried", 0) for row in summary["tasks"]) == 1
        assert STAGGERED_TASK in rows
        assert [each["name"] for each in summary["workers"]] == ["shop"]
        assert summary["problems"] == []
        await asyncio.gather(*(run.wait(60) for run in sleeping))
    assert "Traceback" not in (tmp_path / "err").read_text()
