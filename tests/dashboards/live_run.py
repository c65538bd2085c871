"""Drives real workers through everything the boards show, and remembers what it did.

The engine, the workers, Valkey and Prometheus are real. Every number the tests compare with is counted here, on the
side of the program that asked for the work.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hatchet_sdk import Hatchet
from prometheus_client import CollectorRegistry, start_http_server

from mageflow import Mageflow
from mageflow.config import Settings
from mageflow.engine import LocalEngine
from mageflow.grafana import Answer, ask_panels, find_bundle
from mageflow.testing import WorkerProcess
from mageflow.testing.valkey import EmbeddedValkey
from tests.dashboards.live_worker import REFUSED_TASK, declare_refused, load_driver
from tests.dashboards.prometheus_server import PrometheusServer

RATE_INTERVAL_SECONDS = 15.0
WORKERS = ("shop-a", "shop-b")


@dataclass
class LiveRun:
    """What was done, and where the answers are."""

    prometheus: PrometheusServer
    started: float
    spans_file: Path
    runs: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Expected finished attempts by task and outcome."""
    enqueued: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Runs handed to Hatchet by task and source."""
    moments: list[float] = field(default_factory=list)
    """Times at which something was going on that instant queries are about."""
    ended: float = 0.0

    def expect(self, task: str, *outcomes: str) -> None:
        """Note the attempts one run will have."""
        for outcome in outcomes:
            self.runs[task, outcome] += 1

    def answers(self) -> list[Answer]:
        """Every panel's answer over the whole run; instant ones at the moment that has most to say."""
        at = [self.ended, *self.moments]
        rounds = [
            ask_panels(
                self.prometheus.url,
                find_bundle().boards,
                range_seconds=max(moment - self.started, 10.0),
                rate_interval_seconds=RATE_INTERVAL_SECONDS,
                at=moment,
            )
            for moment in at
        ]
        return [max(same, key=lambda answer: answer.series) for same in zip(*rounds, strict=True)]


class Driver:
    """Enqueues from this process, as a web application would."""

    def __init__(self, run: LiveRun, client: Mageflow) -> None:
        self._run = run
        self._client = client
        self._module = load_driver()
        self.shop = self._module.declare(client)
        self.refused = declare_refused(client, self._module.Order)

    def order(self, number: int = 0, seconds: float = 0.05) -> Any:
        return self._module.Order(number=number, seconds=seconds)

    async def send(self, task: Any, order: Any, *outcomes: str) -> Any:
        """Enqueue one run and note what will become of it."""
        self._run.expect(task.name, *outcomes)
        self._run.enqueued[task.name, "direct"] += 1
        return await task.aio_run(order, wait_for_result=False)

    async def everything(self) -> None:
        """All of it, over about half a minute so that rates have something to be computed from."""
        shop = self.shop
        waiting = [await self.send(shop.wait, self.order(n), "cancelled") for n in range(3)]
        for n in range(2):
            await self.send(shop.render, self.order(n, seconds=12), "timed_out")
        steady = asyncio.create_task(self._steady(rounds=24))
        for n in range(4):
            await self.send(shop.hang, self.order(n), "timed_out")
        for n in range(5):
            await self.send(shop.flaky, self.order(n), "retried", "succeeded")
        await self._crowd(size=4)
        for n in range(4):
            await self.send(self.refused, self.order(n), "succeeded")
        await asyncio.sleep(5)
        await self._crowd(size=8)
        self._run.moments.append(time.time())
        for run in waiting:
            await self._client.runs.aio_cancel(run.workflow_run_id)
        await self._events_and_schedules()
        await steady

    async def _steady(self, rounds: int) -> None:
        for n in range(rounds):
            for extra in range(2):
                await self.send(self.shop.charge, self.order(n, seconds=0.02 + 0.2 * extra), "succeeded")
            if n % 3 == 0:
                await self.send(self.shop.refuse, self.order(n), "failed")
            await asyncio.sleep(1.0)

    async def _crowd(self, size: int) -> None:
        task = self.shop.sync_stock
        self._run.runs[task.name, "succeeded"] += size
        self._run.enqueued[task.name, "direct"] += size
        items = [task.create_bulk_run_item(self.order(n)) for n in range(size)]
        await task.aio_run_many(items, wait_for_result=False)

    async def _events_and_schedules(self) -> None:
        for n in range(2):
            self._run.expect(self.shop.ship.name, "succeeded", "succeeded")
            await self._client.event.aio_push("order:paid", self.order(n).model_dump())
            await self.shop.ship.aio_schedule(datetime.now(UTC) + timedelta(seconds=1), self.order(n))


@contextmanager
def live_run(folder: Path, engine: LocalEngine, valkey: EmbeddedValkey) -> Generator[LiveRun]:
    """Start Prometheus and two workers, do everything, and wait until Prometheus has seen all of it.

    All of them keep running for the length of the block, so that questions about now have an answer.
    """
    with ExitStack() as stack:
        server = stack.enter_context(PrometheusServer(folder, find_bundle().rules))
        run = LiveRun(server, time.time(), folder / "spans.txt")
        environment = {
            "MAGEFLOW_REDIS_URL": valkey.url,
            "MAGEFLOW_METRICS_SD_DIR": str(server.sd_dir),
            "MAGEFLOW_METRICS_PORT": "0",
            "LIVE_SPANS": str(run.spans_file),
        }
        registry = CollectorRegistry()
        client = Mageflow(Hatchet(), valkey.url, settings=Settings(metrics_port=0), registry=registry)
        driver = Driver(run, client)
        server.scrape_producer(stack.enter_context(_endpoint(registry)))
        script = Path(__file__).with_name("live_worker.py")
        workers = [
            stack.enter_context(
                WorkerProcess(
                    engine,
                    script,
                    output=folder / f"{name}.log",
                    name=name,
                    environment={**environment, "LIVE_WORKER": name},
                )
            )
            for name in WORKERS
        ]
        server.wait_for("count(mageflow_worker_info)", len(WORKERS))
        asyncio.run(driver.everything())
        total = sum(run.runs.values())
        seen = server.wait_for("sum(mageflow_task_runs_total)", total)
        run.ended = time.time()
        tails = "\n".join(worker.output()[-2000:] for worker in workers)
        assert seen == total, f"{seen} attempts were counted of {total}; off by: {missing(run)}\n{tails}"
        yield run


@contextmanager
def _endpoint(registry: CollectorRegistry) -> Generator[int]:
    """A web application's own metrics endpoint; gets its port."""
    http, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        yield http.server_port
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def missing(run: LiveRun) -> dict[tuple[str, str], float]:
    """By task and outcome, how many attempts more were counted than were expected."""
    counted = {
        (series["metric"]["task"], series["metric"]["outcome"]): float(series["value"][1])
        for series in run.prometheus.query("sum by (task, outcome) (mageflow_task_runs_total)")
    }
    keys = {*counted, *run.runs}
    return {k: counted.get(k, 0) - run.runs[k] for k in keys if counted.get(k, 0) != run.runs[k]}


__all__ = ["RATE_INTERVAL_SECONDS", "REFUSED_TASK", "WORKERS", "LiveRun", "live_run", "missing"]
