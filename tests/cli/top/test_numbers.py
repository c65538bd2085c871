"""What the live view shows is what ``/metrics`` and Redis say."""

import asyncio
import time
from collections import Counter

import pytest

from mageflow.cli.demo.scenario import STAGGERED_TASK
from mageflow.cli.demo.shop import Order
from mageflow.cli.demo.shop.tasks import STAGGER_WINDOW
from mageflow.store import Keys, LockStore, RedisPort
from mageflow.telemetry.names import metrics
from tests.cli.top.conftest import reading, until

pytestmark = pytest.mark.slow

LATE_SECONDS = 15.0
"""How much longer than its delay a sleep may take on a busy machine; windows are longer."""


async def test_tasks_are_those_of_the_metrics(services, workload):
    """Counts, rates and percentiles of ended attempts equal the exposition that they are computed from."""
    async with workload() as work, reading(services) as reader:
        before = services.samples()
        asked = time.monotonic()
        await reader.read()
        began = time.monotonic()
        runs = [await work.run(work.shop.charge, Order(number=n, seconds=0.05)) for n in range(12)]
        runs += [await work.run(work.shop.named("checkout.refuse"), Order(number=n)) for n in range(3)]
        await asyncio.gather(*(run.wait(30) for run in runs))
        done = time.monotonic()
        wanted = before.total(metrics.TASK_RUNS.name) + 12 + 6  # a refused run is tried twice
        snapshot = await until(reader.read, lambda s: sum(row.ended for row in s.tasks) >= wanted)
        read = time.monotonic()
    after = services.samples()

    rows = {row.task: row for row in snapshot.tasks}
    counted = {name: after.by("outcome", metrics.TASK_RUNS.name, task=name) for name in rows}
    assert {name: row.outcomes for name, row in rows.items()} == {
        name: {outcome: count for outcome, count in outcomes.items() if count} for name, outcomes in counted.items()
    }
    assert done - began <= snapshot.window_s <= read - asked
    charge, refuse = rows["checkout.charge"], rows["checkout.refuse"]
    assert charge.per_second == pytest.approx(12 / snapshot.window_s, rel=0.01)
    assert charge.unsuccessful_per_second == 0
    assert refuse.unsuccessful_per_second == pytest.approx(6 / snapshot.window_s, rel=0.01)
    assert charge.is_recent
    assert not rows["order.audit"].is_recent
    [worker] = snapshot.workers
    assert (worker.name, worker.slots, worker.is_local) == ("shop", after.total(metrics.WORKER_SLOTS.name), True)
    # 95 of 100 durations are at most the percentile: the buckets around it say so.
    buckets = {
        float(labels["le"]): after.value(f"{metrics.TASK_RUN_DURATION.name}_bucket", **labels)
        - before.total(f"{metrics.TASK_RUN_DURATION.name}_bucket", **labels)
        for le in (f"{bound}" for bound in metrics.DUR)
        for labels in [{"task": "checkout.charge", "outcome": "ok", "le": le}]
    }
    assert max(count for bound, count in buckets.items() if bound < charge.duration_p95) <= 0.95 * 12
    assert min(count for bound, count in buckets.items() if bound >= charge.duration_p95) >= 0.95 * 12


async def test_sleepers_are_those_of_the_gauge(services, workload):
    """Each sleeping attempt is shown with its own delay; their number is ``mageflow_tasks_in_flight``."""
    async with workload() as work, reading(services) as reader:
        runs = [await work.run(work.shop.named(STAGGERED_TASK), Order(number=n, seconds=0.1)) for n in range(8)]
        snapshot = await until(
            reader.read,
            lambda s: (
                len(s.sleepers) >= 2
                and [len(s.sleepers)]
                == [row.in_flight.get("stagger", 0) for row in s.tasks if row.task == STAGGERED_TASK]
            ),
        )
        await asyncio.gather(*(run.wait(30) for run in runs))

        assert {each.run_id for each in snapshot.sleepers} <= {run.run_id for run in runs}
        assert {each.task for each in snapshot.sleepers} == {STAGGERED_TASK}
        assert {each.window_s for each in snapshot.sleepers} == {STAGGER_WINDOW.total_seconds()}
        assert all(0 <= each.slept_s <= each.delay_s + LATE_SECONDS for each in snapshot.sleepers)
        assert all(0 <= each.delay_s <= each.window_s for each in snapshot.sleepers)
        remaining = [each.delay_s - each.slept_s for each in snapshot.sleepers]
        assert remaining == sorted(remaining)
        assert snapshot.stagger_windows == {STAGGERED_TASK: STAGGER_WINDOW.total_seconds()}
        done = await until(reader.read, lambda s: not s.sleepers)
        stages = {each.run_id: each.stages for each in done.attempts if each.outcome == "succeeded"}
        for sleeper in snapshot.sleepers:
            slept = stages[sleeper.run_id]["stagger"]
            assert sleeper.delay_s - 0.1 <= slept <= sleeper.delay_s + LATE_SECONDS


async def test_locks_and_deadlocks_are_those_of_redis_and_of_the_metrics(services, workload):
    """Holders and waiters equal the snapshot of Redis; a broken deadlock is shown with its cycle and victim."""
    before = services.samples().total(metrics.DEADLOCKS.name)
    async with workload() as work, reading(services) as reader:
        runs = await work.deadlock(77, pay_seconds=6, pack_seconds=6)
        held = await until(reader.read, lambda s: s.locks is not None and s.locks.holders_total >= 2)
        port = RedisPort(services.valkey.url)
        stored = await LockStore(port, Keys("mageflow", "")).snapshot()
        await port.aclose()
        assert {(each.lock, each.task, each.run_id) for each in held.locks.holders} == {
            (each.resource.name, each.owner.task, each.owner.run_id) for each in stored.holdings
        }
        await asyncio.gather(*(run.wait(30) for run in runs))
        after = await until(reader.read, lambda s: s.deadlocks_total > before and not s.locks.holders)

    assert after.deadlocks_total == services.samples().total(metrics.DEADLOCKS.name) == before + 1
    deadlock = after.deadlocks[0]
    assert {edge.run_id for edge in deadlock.cycle} == {run.run_id for run in runs}
    assert {edge.lock for edge in deadlock.cycle} == {"account", "stock"}
    assert deadlock.victim_run_id in {run.run_id for run in runs}
    assert deadlock.resolution == "victim_retried"
    outcomes = Counter(
        (each.run_id == deadlock.victim_run_id, each.outcome)
        for each in after.attempts
        if each.run_id in {run.run_id for run in runs}
    )
    assert outcomes == {(True, "retried"): 1, (True, "succeeded"): 1, (False, "succeeded"): 1}
