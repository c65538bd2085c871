"""Runs that wait in Hatchet for a worker: from the metric of the elected worker, else from Hatchet itself."""

import asyncio
from typing import Any

import pytest
from rich.console import Console

from mageflow import Settings
from mageflow.cli.top.sources import Reader
from mageflow.cli.top.views.overview import tasks_table
from mageflow.store import Keys
from mageflow.testing.ports import free_port
from tests.cli.top.conftest import until
from tests.integration.conftest import Observed, make_observed  # noqa: F401 - a fixture


def waiting(snapshot: Any, task: str) -> tuple[int | None, float | None]:
    """What is shown of one task."""
    return next(
        ((row.waiting, row.oldest_waiting_s) for row in snapshot.tasks if row.task == task),
        (None, None),
    )


async def test_what_waits_for_a_slot_is_shown(
    make_observed: Any,  # noqa: F811
    mageflow_redis: Any,
    mageflow_worker: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One run holds the only slot, three wait: by the worker's metric without a token, by Hatchet without a worker."""
    settings = Settings(metrics_port=free_port(), metrics_port_span=1, queue_interval_s=0.3)
    observed: Observed = make_observed(mageflow_redis.url, settings=settings)
    go = asyncio.Event()

    @observed.client.task(name="top-busy")
    async def busy(message: dict) -> dict:
        while not go.is_set():
            await asyncio.sleep(0.02)
        return {}

    mageflow_worker.in_process(observed.client, "top-queue", slots=1, workflows=[busy])
    for _ in range(4):
        await busy.aio_run({}, wait_for_result=False)
    keys = Keys("mageflow", "")

    async with Reader(list, None, keys) as direct:
        snapshot = await until(direct.read, lambda found: waiting(found, "top-busy")[0] == 3)
        assert 0 <= waiting(snapshot, "top-busy")[1] < 60
        with (console := Console(width=140, file=None)).capture() as drawn:
            console.print(tasks_table(snapshot))
        assert "3 (" in drawn.get()
    monkeypatch.delenv("HATCHET_CLIENT_TOKEN")
    async with Reader(list, None, keys) as blind:
        assert (await blind.read()).tasks == ()
    async with Reader(lambda: [f"http://127.0.0.1:{settings.metrics_port}/metrics"], None, keys) as reader:
        await until(reader.read, lambda found: waiting(found, "top-busy")[0] == 3)
        go.set()
        await until(reader.read, lambda found: waiting(found, "top-busy") == (0, 0.0))


async def test_a_hatchet_that_is_away_is_one_sentence(monkeypatch: pytest.MonkeyPatch, mageflow_engine: Any) -> None:
    """The rest of the view is shown."""
    monkeypatch.setenv("HATCHET_CLIENT_SERVER_URL", "http://127.0.0.1:1")
    async with Reader(list, None, Keys("mageflow", "")) as reader:
        snapshot = await reader.read()
    assert any(each.startswith("what waits in Hatchet is not known: ") for each in snapshot.problems)
    monkeypatch.setenv("HATCHET_CLIENT_TOKEN", "no token")
    async with Reader(list, None, Keys("mageflow", "")) as reader:
        snapshot = await reader.read()
    assert any("HATCHET_CLIENT_TOKEN is not a token" in each for each in snapshot.problems)
