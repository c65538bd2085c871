"""Drives real workers through everything the boards show, and remembers what it did.

The engine, the workers, Valkey and Prometheus are real. Every number the tests compare with is counted here, on the
side of the program that asked for the work.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hatchet_sdk import Hatchet
from prometheus_client import CollectorRegistry, start_http_server
from redis.asyncio import Redis

from mageflow import Mageflow
from mageflow.config import Settings
from mageflow.dashboards import PanelResult, find_bundle, run_panel_queries
from mageflow.engine import LocalEngine
from mageflow.signatures import SwarmConfig
from mageflow.telemetry.names.traces import KEY_SIGNATURE
from mageflow.testing import WorkerProcess
from mageflow.testing.valkey import EmbeddedValkey
from tests.dashboards.live_worker import NIGHT_WORKER, REFUSED_TASK, Faults, load_driver
from tests.dashboards.prometheus_server import PrometheusServer

RATE_INTERVAL_SECONDS = 15.0
WORKERS = ("shop-a", "shop-b", NIGHT_WORKER)
NOISES = 140
"""More exception classes than the label may have."""

RING = "order.pay or order.pack"
"""Which of the two a deadlock retries is not for the driver to know."""


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
    loads: Counter[str] = field(default_factory=Counter)
    """Signature loads by result."""
    flows: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Flows by kind, name and outcome."""
    callbacks: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Callbacks by kind and result."""
    acquired: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Lock requests that ended, by lock and outcome."""
    deadlocks: int = 0
    lost: int = 0
    """Leases that end before the work under them does."""
    moments: list[float] = field(default_factory=list)
    """Times at which something was going on that instant queries are about."""
    ended: float = 0.0

    def expect(self, task: str, *outcomes: str) -> None:
        """Note the attempts one run will have."""
        for outcome in outcomes:
            self.runs[task, outcome] += 1

    def in_order(self) -> list[float]:
        """Times to ask instant queries at: the end first, so that it wins where all have equally much to say."""
        return [self.ended, *self.moments]

    def answers(self) -> list[PanelResult]:
        """Every panel's answer over the whole run; instant ones at the moment that has most to say."""
        at = self.in_order()
        rounds = [
            run_panel_queries(
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

    def __init__(
        self, run: LiveRun, client: Mageflow, hatchet: Hatchet, redis: Redis, kill_night_watch: Callable[[], object]
    ) -> None:
        self._kill_night_watch = kill_night_watch
        self._run = run
        self._client = client
        self._hatchet = hatchet
        self._redis = redis
        self._module = load_driver()
        self.shop = self._module.declare(client)
        self.faults = Faults(client, self._module.Order)

    def order(self, number: int = 0, seconds: float = 0.05) -> Any:
        return self._module.Order(number=number, seconds=seconds)

    async def send(self, task: Any, order: Any, *outcomes: str) -> Any:
        """Enqueue one run and note what will become of it."""
        self._run.expect(task.name, *outcomes)
        self._run.enqueued[task.name, "direct"] += 1
        return await task.aio_run(order, wait_for_result=False)

    async def everything(self) -> None:
        """All of it, over about half a minute so that rates have something to be computed from."""
        async with asyncio.TaskGroup() as group:
            for part in (
                self._steady(rounds=26), self._failures(), self._cancelled(), self._staggers(), self._sources(),
                self._signatures(), self._flows(), self._contention(), self._deadlocks(), self._killed(),
            ):  # fmt: skip
                group.create_task(part)
        await self._lost_leases()

    async def _steady(self, rounds: int) -> None:
        for n in range(rounds):
            for extra in range(2):
                await self.send(self.shop.charge, self.order(n, seconds=0.02 + 0.2 * extra), "succeeded")
            if n % 3 == 0:
                await self.send(self.shop.refuse, self.order(n), "failed")
            if n in (12, 20):
                self._run.moments.append(time.time())
            await asyncio.sleep(1.0)

    async def _failures(self) -> None:
        for n in range(2):
            await self.send(self.shop.render, self.order(n, seconds=12), "timed_out")
        for n in range(4):
            await self.send(self.shop.hang, self.order(n), "timed_out")
        for n in range(5):
            await self.send(self.shop.flaky, self.order(n), "retried", "succeeded")
        for n in range(NOISES):
            await self.send(self.faults.noise, self.order(n), "failed")
            await asyncio.sleep(0.05)

    async def _cancelled(self) -> None:
        waiting = [await self.send(self.shop.wait, self.order(n), "cancelled") for n in range(3)]
        await asyncio.sleep(8)
        for run in waiting:
            await self._client.runs.aio_cancel(run.workflow_run_id)

    async def _staggers(self) -> None:
        task = self.shop.sync_stock
        for size in (4, 8):
            self._run.runs[task.name, "succeeded"] += size
            self._run.enqueued[task.name, "direct"] += size
            items = [task.create_bulk_run_item(self.order(n)) for n in range(size)]
            await task.aio_run_many(items, wait_for_result=False)
            await asyncio.sleep(6)
        for n in range(4):
            await self.send(self.faults.refused, self.order(n), "succeeded")

    async def _sources(self) -> None:
        for n in range(2):
            self._run.expect(self.shop.ship.name, "succeeded", "succeeded")
            await self._client.event.aio_push("order:paid", self.order(n).model_dump())
            await self.shop.ship.aio_schedule(datetime.now(UTC) + timedelta(seconds=1), self.order(n))

    # -- signatures and flows ------------------------------------------------------------------------------------

    async def _signatures(self) -> None:
        for n in range(6):
            signature = await self._client.sign(self.shop.reserve, success_callbacks=[self.shop.tell], number=n)
            await signature.aio_run_no_wait(self.order(n))
            self._run.expect(self.shop.reserve.name, "succeeded")
            self._run.expect(self.shop.tell.name, "succeeded")
            self._run.loads["hit"] += 2
            self._run.callbacks["success", "enqueued"] += 1
            await asyncio.sleep(2)
        lost = await self._client.chain([self.shop.pick, self.shop.ship], name="lost")
        unheard = await self._client.sign(self.shop.reserve, success_callbacks=[lost])
        await self._client.remove(lost)
        await unheard.aio_run_no_wait(self.order())
        self._run.expect(self.shop.reserve.name, "succeeded")
        self._run.loads["hit"] += 1
        self._run.callbacks["success", "failed"] += 1
        gone = await self._client.sign(self.shop.reserve)
        await self._client.remove(gone)
        spoiled = await self._client.sign(self.shop.reserve)
        await self._redis.hset(f"{spoiled.key}:defs", "", "T:0:0|no JSON at all")
        broken = await self._client.sign(self.shop.reserve)
        await self._redis.set(broken.key, "not a hash")
        stopped = await self._client.sign(self.shop.reserve)
        await self._client.suspend(stopped)
        for key, load in ((gone.key, "missing"), (spoiled.key, "invalid"), (broken.key, "error")):
            for n in range(2):
                await self._claim(key, n)
                self._run.expect(self.shop.reserve.name, "failed")
                self._run.loads[load] += 1
        await self._claim(stopped.key, 0)
        self._run.expect(self.shop.reserve.name, "skipped")
        self._run.loads["hit"] += 1

    async def _claim(self, key: str, number: int) -> None:
        """Start a run that says it belongs to a signature, past everything that would look after it first."""
        stub = self._hatchet.stubs.task(name=self.shop.reserve.name, input_validator=self._module.Order)
        metadata = {KEY_SIGNATURE: key}
        await stub.aio_run(self.order(number), additional_metadata=metadata, wait_for_result=False)

    async def _flows(self) -> None:
        shop = self.shop
        for n in range(6):
            steps = [shop.reserve, shop.pick, shop.ship]
            chain = await self._client.chain(steps, name="fulfilment", success=shop.tell)
            await chain.aio_run_no_wait(self.order(n))
            self._flow("chain", "fulfilment", "succeeded", [task.name for task in steps], "success")
            if n % 3 == 0:
                chain = await self._client.chain([shop.pick, shop.refuse], name="prepayment", error=shop.tell)
                await chain.aio_run_no_wait(self.order(n))
                self._flow("chain", "prepayment", "failed", [shop.pick.name], "error")
                self._run.expect(shop.refuse.name, "failed")
                self._run.loads["hit"] += 1
                config = SwarmConfig(max_concurrency=3)
                swarm = await self._client.swarm([shop.pick] * 9, name="inventory", config=config, closed=True)
                await swarm.aio_run_no_wait(self.order(n, seconds=0.5))
                self._flow("swarm", "inventory", "succeeded", [shop.pick.name] * 9, "")
            await asyncio.sleep(2)

    def _flow(self, kind: str, name: str, outcome: str, tasks: list[str], callback: str) -> None:
        self._run.flows[kind, name, outcome] += 1
        for task in tasks:
            self._run.expect(task, "succeeded")
        self._run.loads["hit"] += len(tasks)
        if callback:
            self._run.expect(self.shop.tell.name, "succeeded")
            self._run.loads["hit"] += 1
            self._run.callbacks[callback, "enqueued"] += 1

    # -- locks ---------------------------------------------------------------------------------------------------

    async def _contention(self) -> None:
        for n in range(7):
            await self.send(self.shop.count, self.order(n, seconds=3.0), "succeeded")
            self._run.acquired["till", "acquired"] += 1
        await asyncio.sleep(1)
        for n in range(2):
            await self.send(self.faults.impatient, self.order(n), "failed")
            self._run.acquired["till", "timeout"] += 1

    async def _deadlocks(self) -> None:
        """Two pairs at once, so that for some seconds tasks wait for each other both ways, and then in rings."""
        await asyncio.sleep(8)
        for pay, pack in ((0.3, 6.0), (6.0, 0.3)):
            number = 1 if pay < pack else 2
            await self.send(self.shop.pay, self.order(number, seconds=pay), "succeeded")
            await self.send(self.shop.pack, self.order(number, seconds=pack), "succeeded")
            self._run.runs[RING, "retried"] += 1
            self._run.deadlocks += 1
        await asyncio.sleep(3)
        self._run.moments.append(time.time())

    async def _killed(self) -> None:
        """Kill a worker that holds a lock, and take its run back before the engine gives it to somebody else."""
        run = await self.faults.night.aio_run(self.order(seconds=90), wait_for_result=False)
        await asyncio.sleep(8)
        self._kill_night_watch()
        await asyncio.sleep(8)
        self._run.moments.append(time.time())
        await self._client.runs.aio_cancel(run.workflow_run_id)

    async def _lost_leases(self) -> None:
        """Forget every session of the lock service, as a failover that lost writes would; all else is done by then."""
        await asyncio.sleep(2)
        for n in range(3):
            await self.send(self.faults.guard, self.order(n, seconds=9.0), "succeeded")
            self._run.acquired["vault", "acquired"] += 1
        await asyncio.sleep(2)
        (sessions,) = [key async for key in self._redis.scan_iter("*:sessions")]
        await self._redis.delete(sessions)
        self._run.lost += 3
        await asyncio.sleep(8)


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
        redis = Redis.from_url(valkey.url)
        client = Mageflow(Hatchet(), redis, settings=Settings(metrics_port=0), registry=registry)
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
        night_watch = workers[WORKERS.index(NIGHT_WORKER)]
        driver = Driver(run, client, Hatchet(), redis, night_watch.kill)
        asyncio.run(_drive(driver, redis))
        total = sum(run.runs.values())
        seen = server.wait_for("sum(mageflow_task_runs_total)", total)
        run.ended = time.time()
        tails = "\n".join(worker.output()[-2000:] for worker in workers)
        assert seen == total, f"{seen} attempts were counted of {total}; off by: {missing(run)}\n{tails}"
        yield run


async def _drive(driver: Driver, redis: Redis) -> None:
    try:
        await driver.everything()
    finally:
        await redis.aclose()


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
    counted: Counter[tuple[str, str]] = Counter()
    for series in run.prometheus.query("sum by (task, outcome) (mageflow_task_runs_total)"):
        task, outcome = series["metric"]["task"], series["metric"]["outcome"]
        is_ring = outcome == "retried" and task in RING.split(" or ")
        counted[RING if is_ring else task, outcome] += float(series["value"][1])
    keys = {*counted, *run.runs}
    return {key: counted[key] - run.runs[key] for key in keys if counted[key] != run.runs[key]}


__all__ = ["NIGHT_WORKER", "RATE_INTERVAL_SECONDS", "REFUSED_TASK", "WORKERS", "LiveRun", "live_run", "missing"]
