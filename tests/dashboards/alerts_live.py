"""Every alert in a real Prometheus: quiet while real workers are healthy, firing when its incident happens.

``python -m tests.dashboards.alerts_live`` takes about five minutes and prints a table. ``--incident deadlocks`` causes
that one in a minute, without the healthy time, and prints what fired. Windows, waits and thresholds are shortened
(`shortened_rules`, `THRESHOLDS`); expressions are the shipped ones. A healthy time has a restart, a clean scale-in, a
new worker, lost scrapes, lock contention in both directions and one failure of a rare task.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from dashboards.generator.alerts import alerts
from dashboards.generator.recordings import recording_groups
from dashboards.generator.rules import Thresholds, alerts_yaml, recording_yaml
from mageflow.cli.demo.shop import Order
from mageflow.engine import LocalEngine
from mageflow.signatures import SwarmConfig
from mageflow.testing.valkey import EmbeddedValkey
from tests.dashboards.faulty_worker import KILLED_WORKER
from tests.dashboards.live_run import Environment, environment

THRESHOLDS = Thresholds(
    queue_wait_seconds=6, waiting_seconds=6, lock_wait_seconds=8, lock_hold_seconds=12, flow_age_seconds=25,
    orphaned_minutes_in_15m=2, loop_lag_seconds=3,
)  # fmt: skip
"""Thresholds of minutes are shortened like windows; ratios and counts are the shipped ones.

The event loop may be later: a short window has few samples, so its 99th percentile is the one worst of them.
"""

HEALTHY_SECONDS = 120
"""An hour, at thirty times the speed."""

_DEADLOCKS = 12
_SINGLE_SECONDS = 20
"""How long a single incident is watched at least."""

INCIDENTS = (
    "open-swarm", "unseen-flows", "at-once", "deadlocks", "long-stagger", "backlog", "many-names", "blocked-loop",
    "lost-leases", "frozen-redis",
)  # fmt: skip
"""In the order in which they happen."""

WORKERS = ("shop-a", "shop-b", "scaled-in", "restarted", KILLED_WORKER)


class Incidents:
    """Causes the incident of each alert, beside traffic that is in order."""

    def __init__(self, started: Environment, valkey: EmbeddedValkey) -> None:
        self._started = started
        self._valkey = valkey
        self._workload = started.workload.workload
        self._shop = started.workload.shop
        self._faulty = started.workload.faulty
        self._client = started.workload.client
        self._failing = False
        self._stopped = False

    async def healthy(self, seconds: float) -> None:
        """The healthy time."""
        began = time.monotonic()
        await self._rare_failure()
        lost = (began + n for n in (20, 21.5, 70))
        steps: list[tuple[float, Callable[[], Awaitable[None]]]] = [
            (30, self._scale_in), (45, self._restart), *((at - began, self._lose_a_scrape) for at in lost),
        ]  # fmt: skip
        async with asyncio.TaskGroup() as group:
            for at, step in steps:
                group.create_task(_later(at, step))
            while time.monotonic() - began < seconds:
                await self._workload.count_till(Order(seconds=0.4))
                await self._workload.chain(Order())
                await self._workload.run_many(self._shop.sync, [Order(number=n) for n in range(2)])
                await asyncio.sleep(3)

    async def traffic(self) -> None:
        """Runs of the two tasks whose budgets will burn, in order until `incidents` begins."""
        n = 0
        while not self._stopped:
            n += 1
            for task, fails in ((self._faulty.fails_much, True), (self._faulty.fails_little, n % 20 == 0)):
                number = -1 if self._failing and fails else 1
                with contextlib.suppress(Exception):
                    await task.aio_run(Order(number=number), wait_for_result=False)
            await self._workload.run(self._shop.charge, Order(seconds=0.02))
            await asyncio.sleep(0.5)

    async def incidents(self, only: str = "") -> None:
        """All incidents or the named one, those that disturb others last."""
        self._failing = True
        for name, (cause, seconds) in zip(INCIDENTS, self._causes(), strict=True):
            if only in ("", name):
                await cause()
                await asyncio.sleep(max(seconds, _SINGLE_SECONDS) if only else seconds)
        self._stopped = True

    def _causes(self) -> list[tuple[Callable[[], Awaitable[object]], float]]:
        """What causes each of `INCIDENTS`, and the seconds until the next one begins."""
        live = self._started.workload
        return [
            (self._open_swarm, 0),
            (lambda: live.unseen_flows(20), 0),
            (self._at_once, 0),
            (self._deadlocks, 8),
            (self._long_stagger, 20),
            (self._backlog, 45),
            (lambda: self._start(self._faulty.many_names, Order(number=400)), 15),
            (lambda: self._start(self._faulty.block_loop, Order(seconds=25)), 28),
            (self._lose_leases, 8),
            (self._freeze_redis, 15),
        ]

    async def _at_once(self) -> None:
        live = self._started.workload
        async with asyncio.TaskGroup() as group:
            for part in (live.failures(), live.staggers(), live.signatures(), live.killed(), self._long_lock()):
                group.create_task(part)

    async def _open_swarm(self) -> None:
        config = SwarmConfig(max_concurrency=1)
        swarm = await self._client.swarm([self._shop.pick], name="open", config=config)
        await swarm.aio_run_no_wait(Order(seconds=0.1))

    async def _deadlocks(self) -> None:
        """Deadlocks close together, more than the alert needs.

        Both tasks of a pair hold their first lock for seconds: on a busy machine one may start that much later, and a
        pair that does not overlap is no deadlock.
        """
        async with asyncio.TaskGroup() as group:
            for n in range(_DEADLOCKS):
                group.create_task(self._workload.deadlock(n + 1, pay_seconds=4.0, pack_seconds=5.0))
        await asyncio.sleep(12)

    async def _long_stagger(self) -> None:
        await self._workload.run_many(self._faulty.doze, [Order(number=n) for n in range(80)])

    async def _backlog(self) -> None:
        for n in range(120):
            await self._start(self._shop.charge, Order(number=n, seconds=25))

    async def _lose_leases(self) -> None:
        for _ in range(2):
            await self._start(self._faulty.hold, Order(number=1, seconds=40))
        await asyncio.sleep(4)
        await self._started.workload.delete_sessions()

    async def _freeze_redis(self) -> None:
        for _ in range(2):
            await self._start(self._faulty.hold, Order(number=2, seconds=40))
        await asyncio.sleep(4)
        os.kill(self._valkey.pid, signal.SIGSTOP)
        await asyncio.sleep(35)
        os.kill(self._valkey.pid, signal.SIGCONT)

    async def _start(self, task: Any, order: Order) -> None:
        await task.aio_run(order, wait_for_result=False)

    async def _rare_failure(self) -> None:
        await self._shop.charge.aio_run(Order(), wait_for_result=False)
        await self._faulty.impatient.aio_run(Order(), wait_for_result=False)

    async def _scale_in(self) -> None:
        await asyncio.to_thread(self._started.workers["scaled-in"].stop)

    async def _restart(self) -> None:
        worker = self._started.workers["restarted"]
        await asyncio.to_thread(worker.stop)
        await asyncio.sleep(2)
        await asyncio.to_thread(worker.start)

    async def _lose_a_scrape(self) -> None:
        """Freeze a worker for longer than a scrape may take."""
        pid = self._started.workers["shop-b"].pid
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(1.3)
        os.kill(pid, signal.SIGCONT)

    async def _long_lock(self) -> None:
        for _ in range(2):
            await self._faulty.hold.aio_run(Order(number=77, seconds=22), wait_for_result=False)
        await asyncio.sleep(25)


async def _later(seconds: float, step: Callable[[], Awaitable[None]]) -> None:
    await asyncio.sleep(seconds)
    await step()


def watch(folder: Path, only: str = "") -> tuple[set[str], set[str]]:
    """Run everything or one incident. Get the alerts that fired while all was well, and those that fired afterwards."""
    source = folder / "source"
    source.mkdir()
    rules = tuple(source / name for name in ("alerts.yml", "recording.yml"))
    rules[0].write_text(alerts_yaml(alerts(THRESHOLDS)))
    rules[1].write_text(recording_yaml(recording_groups(THRESHOLDS)))
    with EmbeddedValkey() as valkey, LocalEngine() as engine:
        os.environ.update(engine.environment())
        with environment(folder, engine, valkey, rules=rules, names=WORKERS) as started:
            return asyncio.run(_watch(Incidents(started, valkey), started, only))


async def _watch(incidents: Incidents, started: Environment, only: str) -> tuple[set[str], set[str]]:
    fired_since = started.run.prometheus.alerts_that_fired
    async with asyncio.TaskGroup() as group:
        group.create_task(incidents.traffic())
        quiet = set[str]()
        if not only:
            began = time.time()
            await incidents.healthy(HEALTHY_SECONDS)
            quiet = fired_since(began)
            sys.stdout.write(f"fired in {HEALTHY_SECONDS} healthy seconds: {', '.join(sorted(quiet)) or 'none'}\n")
        began = time.time()
        await incidents.incidents(only)
    fired = fired_since(began)
    await started.redis.aclose()
    return quiet, fired


def main() -> int:
    """Print which alerts fired; 0 if none did in health and all did on their incidents."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("--incident", default="", choices=INCIDENTS, help="cause only this one")
    only: str = parser.parse_args().incident
    with tempfile.TemporaryDirectory(prefix="alerts-live-") as folder:
        quiet, fired = watch(Path(folder), only)
    if only:
        sys.stdout.write(f"fired on {only}: {', '.join(sorted(fired)) or 'none'}\n")
        return 0 if fired else 1
    names = [alert.name for alert in alerts()]
    for name in names:
        sys.stdout.write(f"{name:34} {'fired' if name in fired else 'DID NOT FIRE'}\n")
    sys.stdout.write(f"{len(fired & set(names))} of {len(names)} fired on their incidents; {len(quiet)} false pages\n")
    return 0 if set(names) <= fired and not quiet else 1


if __name__ == "__main__":
    raise SystemExit(main())
