"""Starts everything that the boards show on real workers, and counts what it starts.

The engine, the workers, Valkey and Prometheus are real. The program that starts the work counts every number that the
tests compare with.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from hatchet_sdk import Hatchet
from prometheus_client import CollectorRegistry, start_http_server
from redis.asyncio import Redis

from mageflow import Mageflow
from mageflow.cli.demo.shop import DEADLOCK_PAIR, Expected, Order, Workload, declare
from mageflow.cli.demo.shop.spans import SpanRecord, read_spans
from mageflow.config import Settings
from mageflow.dashboards import PanelResult, find_bundle, run_panel_queries
from mageflow.engine import LocalEngine
from mageflow.metadata import KEY_SIGNATURE
from mageflow.testing import WorkerProcess
from mageflow.testing.valkey import EmbeddedValkey
from tests.dashboards.faulty_worker import KILLED_WORKER, FaultyTasks
from tests.dashboards.prometheus_server import PrometheusServer

RATE_INTERVAL_SECONDS = 15.0
WORKERS = ("shop-a", "shop-b", KILLED_WORKER)
UNIQUE_ERRORS = 140
"""More exception classes than the label may have."""


@dataclass
class LiveRun:
    """The Prometheus server of the run, and the numbers it must have."""

    prometheus: PrometheusServer
    started: float
    folder: Path
    """Each worker writes its spans to ``NAME-spans.jsonl`` here."""
    expected: Expected = field(default_factory=Expected)
    lost_leases: int = 0
    """Leases that end before the work under them ends."""
    moments: list[float] = field(default_factory=list)
    """Times for instant queries about something that is over at the end."""
    ended: float = 0.0

    def spans(self) -> list[SpanRecord]:
        """The spans that the workers exported."""
        return read_spans(*self.folder.glob("*-spans.jsonl"))

    def answers(self) -> list[PanelResult]:
        """Every panel's answer over the whole run. An instant query has the answer of the time with most series."""
        boards = find_bundle().boards
        found = {answer.query: answer for answer in self._answers(boards, self.ended)}
        instant = [_with_instant_queries(board, self.folder) for board in boards]
        for moment in self.moments:
            for answer in self._answers(instant, moment):
                found[answer.query] = max(found[answer.query], answer, key=lambda each: each.series)
        return [*found.values()]

    def _answers(self, boards: Iterable[Path], moment: float) -> list[PanelResult]:
        return run_panel_queries(
            self.prometheus.url,
            boards,
            range_seconds=max(moment - self.started, 10.0),
            rate_interval_seconds=RATE_INTERVAL_SECONDS,
            at=moment,
        )


def _with_instant_queries(board: Path, folder: Path) -> Path:
    """A copy of a board without its range queries. They see every moment from the end, and are what takes long."""
    document = json.loads(board.read_text())
    for panel in document["panels"]:
        for inner in [panel, *panel.get("panels", [])]:
            inner["targets"] = [each for each in inner.get("targets", []) if each.get("instant")]
    copy = folder / f"instant-{board.name}"
    copy.write_text(json.dumps(document))
    return copy


class LiveWorkload:
    """Starts work from this process, as a web application does."""

    def __init__(
        self, run: LiveRun, client: Mageflow, hatchet: Hatchet, redis: Redis, kill_worker: Callable[[], object]
    ) -> None:
        self._run = run
        self.client = client
        self._hatchet = hatchet
        self._redis = redis
        self._kill_worker = kill_worker
        self.shop = declare(client)
        self.faulty = FaultyTasks(client)
        self.workload = Workload(client, self.shop)
        self.expected = run.expected = self.workload.expected

        @client.task(name="returns.pick_up", input_validator=Order)
        async def not_served(msg: Order) -> None:
            """A task that only this program declares."""

        self._not_served = not_served

    async def everything(self) -> None:
        """Start all of it, over about half a minute, so that rates can be computed."""
        async with asyncio.TaskGroup() as group:
            for part in (
                self._steady(rounds=26), self.failures(), self._cancelled(), self.staggers(), self._sources(),
                self.signatures(), self._flows(), self._contention(), self._deadlocks(), self.killed(),
            ):  # fmt: skip
                group.create_task(part)
        await self._lost_leases()

    async def _steady(self, rounds: int) -> None:
        for n in range(rounds):
            for extra in range(2):
                await self.workload.run(self.shop.charge, Order(number=n, seconds=0.02 + 0.2 * extra))
            if n % 3 == 0:
                await self.workload.run(self.shop.refuse, Order(number=n))
                await self.workload.run(self.shop.audit, Order(number=n))
            if n in (12, 20):
                self._run.moments.append(time.time())
            await asyncio.sleep(1.0)

    async def failures(self) -> None:
        """Failures, timeouts and exceptions of many classes."""
        # The only attempt of its task, and near its timeout for six seconds.
        await self.workload.run(self.faulty.nearly_late, Order(seconds=38))
        for n in range(2):
            await self.workload.render(Order(number=n, seconds=12))
        for n in range(5):
            await self.workload.run(self.shop.flaky, Order(number=n))
        for n in range(UNIQUE_ERRORS):
            if n % 20 == 0 and n < 100:
                await self.workload.run(self.shop.hang, Order(number=n))
            await self.workload.run(self.faulty.unique_error, Order(number=n), "failed")
            await asyncio.sleep(0.05)

    async def _cancelled(self) -> None:
        await self.workload.cancel(3, after_seconds=8)

    async def staggers(self) -> None:
        """Staggered tasks, and refused extensions."""
        for size in (4, 8):
            await self.workload.run_many(self.shop.sync, [Order(number=n) for n in range(size)])
            await asyncio.sleep(6)
        for n in range(4):
            await self.workload.run(self.faulty.refused, Order(number=n))

    async def _sources(self) -> None:
        for n in range(2):
            await self.workload.push_event(Order(number=n))
            await self.workload.schedule(Order(number=n), timedelta(seconds=1))
        await self._not_served.aio_run(Order(), wait_for_result=False)
        self.expected.enqueued[self._not_served.name, "direct"] += 1

    # -- signatures and flows ------------------------------------------------------------------------------------

    async def signatures(self) -> None:
        """Signed runs, and runs whose signature cannot be loaded."""
        reserve = self.shop.reserve
        for n in range(6):
            await self.workload.run_signed(reserve, Order(number=n), has_callback=True)
            await asyncio.sleep(2)
        removed_chain = await self.client.chain([self.shop.pick, self.shop.ship], name="removed")
        caller = await self.client.sign(reserve, success_callbacks=[removed_chain])
        await self.client.remove(removed_chain)
        await caller.aio_run_no_wait(Order())
        self.expected.enqueued[reserve.name, "signature"] += 1
        self._expect_signed(reserve.name, "hit", "succeeded")
        self.expected.callbacks["success", "failed"] += 1
        removed, invalid, broken, suspended = [await self.client.sign(reserve) for _ in range(4)]
        await self.client.remove(removed)
        await self._redis.hset(f"{invalid.key}:definitions", "", "T:0:0|no JSON at all")
        await self._redis.set(broken.key, "not a hash")
        await self.client.suspend(suspended)
        for key, load in ((removed.key, "missing"), (invalid.key, "invalid"), (broken.key, "error")):
            for n in range(2):
                await self._run_with_signature(key, n)
                self._expect_signed(reserve.name, load, "failed")
        await self._run_with_signature(suspended.key, 0)
        self._expect_signed(reserve.name, "hit", "skipped")

    def _expect_signed(self, task: str, load: str, outcome: str) -> None:
        self.expected.loads[load] += 1
        self.expected.add_attempts(task, outcome)

    async def _run_with_signature(self, key: str, number: int) -> None:
        """Start a run that names this signature in its metadata. A plain client does not check it first."""
        stub = self._hatchet.stubs.task(name=self.shop.reserve.name, input_validator=Order)
        metadata = {KEY_SIGNATURE: key}
        await stub.aio_run(Order(number=number), additional_metadata=metadata, wait_for_result=False)

    async def _flows(self) -> None:
        for n in range(6):
            await self.workload.chain(Order(number=n))
            if n % 3 == 0:
                await self.workload.failing_chain(Order(number=n))
                await self.workload.swarm(0.5)
            await asyncio.sleep(2)

    async def unseen_flows(self, count: int) -> None:
        """Start chains from a program that no Prometheus scrapes."""
        client = Mageflow(Hatchet(), self._redis, settings=Settings(metrics_port=0), registry=CollectorRegistry())
        shop = declare(client)
        for n in range(count):
            chain = await client.chain([shop.pick, shop.wrap], name="unseen", number=n, seconds=0.05)
            await chain.aio_run_no_wait()

    # -- locks ---------------------------------------------------------------------------------------------------

    async def _contention(self) -> None:
        for n in range(7):
            await self.workload.count_till(Order(number=n, seconds=3.0))
        await asyncio.sleep(1)
        for n in range(2):
            await self.workload.run(self.faulty.impatient, Order(number=n), "failed")
            self.expected.locks["till", "timeout"] += 1

    async def _deadlocks(self) -> None:
        """Two deadlocks at once: for some seconds the tasks wait for each other in both directions."""
        await asyncio.sleep(8)
        await self.workload.deadlock(1, pay_seconds=0.3, pack_seconds=6.0)
        await self.workload.deadlock(2, pay_seconds=6.0, pack_seconds=0.3)
        await asyncio.sleep(3)
        self._run.moments.append(time.time())

    async def killed(self) -> None:
        """Kill a worker that holds a lock. Cancel its run before the engine assigns it again."""
        run = await self.faulty.hold_until_killed.aio_run(Order(seconds=90), wait_for_result=False)
        await asyncio.sleep(8)
        self._kill_worker()
        await asyncio.sleep(8)
        self._run.moments.append(time.time())
        await self.client.runs.aio_cancel(run.workflow_run_id)

    async def delete_sessions(self) -> None:
        """Delete every session of the lock service: each lease is lost."""
        (sessions,) = [key async for key in self._redis.scan_iter("*:sessions")]
        await self._redis.delete(sessions)

    async def _lost_leases(self) -> None:
        """Delete every session of the lock service, as a failover that loses writes does. All other work has ended."""
        await asyncio.sleep(2)
        for n in range(3):
            await self.workload.run(self.faulty.hold, Order(number=n, seconds=9.0))
            self.expected.locks["vault", "acquired"] += 1
        await asyncio.sleep(2)
        await self.delete_sessions()
        self._run.lost_leases += 3
        await asyncio.sleep(8)


@dataclass
class Environment:
    """What a live run needs, started."""

    run: LiveRun
    workload: LiveWorkload
    redis: Redis
    workers: dict[str, WorkerProcess]


@contextmanager
def environment(
    folder: Path, engine: LocalEngine, valkey: EmbeddedValkey, *, rules: tuple[Path, ...], names: Sequence[str]
) -> Generator[Environment]:
    """Start Prometheus with these rules, and a worker for each name, and wait until Prometheus has scraped them."""
    with ExitStack() as stack:
        server = stack.enter_context(PrometheusServer(folder, rules))
        run = LiveRun(server, time.time(), folder)
        registry = CollectorRegistry()
        redis = Redis.from_url(valkey.url)
        client = Mageflow(Hatchet(), redis, settings=Settings(metrics_port=0), registry=registry)
        server.scrape_producer(stack.enter_context(_endpoint(registry)))
        workers = {name: stack.enter_context(_worker(folder, engine, valkey, server, name)) for name in names}
        server.wait_for("count(mageflow_worker_info)", len(names))
        workload = LiveWorkload(run, client, Hatchet(), redis, workers[KILLED_WORKER].kill)
        yield Environment(run, workload, redis, workers)


def _worker(
    folder: Path, engine: LocalEngine, valkey: EmbeddedValkey, server: PrometheusServer, name: str
) -> WorkerProcess:
    return WorkerProcess(
        engine,
        Path(__file__).with_name("faulty_worker.py"),
        output=folder / f"{name}.log",
        name=name,
        environment={
            "MAGEFLOW_REDIS_URL": valkey.url,
            "MAGEFLOW_METRICS_SD_DIR": str(server.sd_dir),
            "MAGEFLOW_METRICS_PORT": "0",
            "MAGEFLOW_QUEUE_INTERVAL_S": "2",
            "LIVE_WORKER": name,
            "LIVE_SPANS": str(folder / f"{name}-spans.jsonl"),
        },
    )


@contextmanager
def live_run(folder: Path, engine: LocalEngine, valkey: EmbeddedValkey) -> Generator[LiveRun]:
    """Start Prometheus and the workers, start all work, and wait until Prometheus has scraped all of it.

    They keep running for the length of the block, so that queries about now have an answer.
    """
    with environment(folder, engine, valkey, rules=find_bundle().rules, names=WORKERS) as started:
        run = started.run
        asyncio.run(_start_everything(started.workload, started.redis))
        total = sum(run.expected.attempts.values())
        seen = run.prometheus.wait_for("sum(mageflow_task_runs_total)", total)
        run.ended = time.time()
        tails = "\n".join(worker.output()[-2000:] for worker in started.workers.values())
        assert seen == total, f"{seen} attempts were counted of {total}; off by: {missing(run)}\n{tails}"
        yield run


async def _start_everything(workload: LiveWorkload, redis: Redis) -> None:
    try:
        await workload.everything()
    finally:
        await redis.aclose()


@contextmanager
def _endpoint(registry: CollectorRegistry) -> Generator[int]:
    """The metrics endpoint of a web application. Yields its port."""
    http, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        yield http.server_port
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def missing(run: LiveRun) -> dict[tuple[str, str], float]:
    """By task and outcome, how many more attempts were counted than expected. Equal counts are left out."""
    expected, counted = run.expected.attempts, Counter[tuple[str, str]]()
    for series in run.prometheus.query("sum by (task, outcome) (mageflow_task_runs_total)"):
        task, outcome = series["metric"]["task"], series["metric"]["outcome"]
        # Either task of a deadlock can be the victim.
        is_victim = outcome == "retried" and task in DEADLOCK_PAIR
        counted[" or ".join(DEADLOCK_PAIR) if is_victim else task, outcome] += float(series["value"][1])
    return {key: counted[key] - expected[key] for key in {*counted, *expected} if counted[key] != expected[key]}
