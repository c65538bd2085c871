"""The leader's numbers are what is stored."""

import asyncio
import contextlib

from mageflow.signatures import SwarmConfig
from mageflow.testing.valkey import EmbeddedValkey
from tests.cluster.conftest import MakeProcess, Process, until


async def held(service: Process, first: str, second: str = "") -> asyncio.Task[None]:
    """A run that holds one resource and, with a second, waits for that one."""
    locked = asyncio.Event()

    async def run() -> None:
        async with service.locks.resource(first).acquire():
            locked.set()
            if second:
                async with service.locks.resource(second).acquire():
                    pass
            else:
                await asyncio.Event().wait()

    task = asyncio.create_task(run())
    await asyncio.wait_for(locked.wait(), 60)
    return task


async def test_counts_are_those_of_what_was_created(process: MakeProcess) -> None:
    """Signatures by kind and status, active flows and the age of the oldest, items by state."""
    leader = process()
    flows, worker = leader.flows, leader.worker
    for _ in range(3):
        await flows.creation.sign("echo")
    await flows.start(await flows.creation.chain(["echo", "fail", "echo"]))
    items = [await flows.creation.sign("fail" if index == 0 else "echo") for index in range(6)]
    swarm = await flows.creation.swarm(items, config=SwarmConfig(max_concurrency=2, refill_linger_ms=0))
    await worker.drain()
    await flows.start(swarm)
    await worker.one()
    await flows.start(await flows.creation.chain(["echo", "echo"]))
    await flows.creation.chain(["echo", "echo"])
    await leader.observer.observe()

    samples = leader.samples
    stored = {
        (sample["kind"], sample["status"]): samples.value("mageflow_signatures", **sample)
        for sample in (
            {"kind": kind, "status": status}
            for kind in ("task", "chain", "swarm")
            for status in ("pending", "active", "suspended", "done", "failed", "cancelled", "interrupted")
        )
    }
    assert {pair: count for pair, count in stored.items() if count} == {
        ("task", "pending"): 9,
        ("chain", "failed"): 1,
        ("chain", "active"): 1,
        ("chain", "pending"): 1,
        ("swarm", "active"): 1,
    }
    assert len(stored) == 21
    assert samples.value("mageflow_flows_active", flow="chain") == 1
    assert samples.value("mageflow_flows_active", flow="swarm") == 1
    assert 0 <= samples.value("mageflow_flow_oldest_active_seconds", flow="swarm") < 10
    shown = {state: samples.value("mageflow_swarm_items", state=state) for state in ("pending", "running", "failed")}
    assert shown == {"pending": 3, "running": 2, "failed": 1}

    before = samples.value("mageflow_flow_oldest_active_seconds", flow="swarm")
    await asyncio.sleep(0.05)
    await leader.observer.observe()
    assert leader.samples.value("mageflow_flow_oldest_active_seconds", flow="swarm") >= before + 0.05


async def test_flows_that_expired_are_not_active_for_ever(process: MakeProcess) -> None:
    """A flow whose record is gone drops out of the active ones, with its items, at the next reading."""
    leader = process()
    chain = await leader.flows.creation.chain(["echo", "echo"])
    swarm = await leader.flows.creation.swarm(["echo", "echo"])
    living = await leader.flows.creation.chain(["echo", "echo"])
    for each in (chain, swarm, living):
        await leader.flows.start(each)
    for each in (chain, swarm):
        await leader.port.command("DEL", each.key)  # what Redis does when a TTL ends
    await leader.observer.observe()
    assert leader.samples.value("mageflow_flows_active", flow="chain") == 1
    assert leader.samples.value("mageflow_flows_active", flow="swarm") == 0
    assert leader.samples.value("mageflow_flow_oldest_active_seconds", flow="swarm") == 0
    assert leader.samples.value("mageflow_swarm_items", state="running") == 0


async def test_signatures_that_expired_are_dropped_within_four_readings(process: MakeProcess) -> None:
    """Each reading of the leader drops those of a quarter of the shards."""
    leader = process()
    for _ in range(40):
        signature = await leader.flows.creation.sign("echo")
        shard, identity = signature.key.rpartition(":")[0].rpartition(":")[0], signature.key.rpartition(":")[2]
        await leader.port.command("ZADD", f"{shard}:stats:task:pending", 1, identity)  # its TTL has ended
    counts: list[float] = []
    for _ in range(4):
        await leader.observer.observe()
        counts.append(leader.samples.value("mageflow_signatures", kind="task", status="pending"))
    assert counts == sorted(counts, reverse=True)
    assert 0 < counts[0] < 40
    assert counts[-1] == 0


async def test_a_single_reading_counts_no_expired_signature(process: MakeProcess) -> None:
    """A command reads once, and has all shards drop what has expired."""
    leader = process()
    signature = await leader.flows.creation.sign("echo")
    await leader.flows.creation.sign("echo")
    shard, identity = signature.key.rpartition(":")[0].rpartition(":")[0], signature.key.rpartition(":")[2]
    await leader.port.command("ZADD", f"{shard}:stats:task:pending", 1, identity)
    assert (await leader.flows.search.counts())["task"]["pending"] == 1


async def test_locks_show_the_wait_graph_and_who_is_gone(process: MakeProcess) -> None:
    """Runs, waits and the longest line; a lock is orphaned from the missed renewal on, until another run takes it."""
    leader, other = process(), process()
    last = await held(leader, "c")
    middle = await held(leader, "b", "c")
    first = await held(leader, "a", "b")
    try:

        async def waits() -> bool:
            return (await leader.locks.snapshot()).waiters_total == 2

        await until(waits)
        gone = await held(other, "d")
        await leader.observer.observe()
        graph = {
            element: leader.samples.value("mageflow_wait_graph_size", element=element)
            for element in ("nodes", "edges", "longest_path")
        }
        assert graph == {"nodes": 4, "edges": 2, "longest_path": 3}
        orphaned = {lock: leader.samples.value("mageflow_locks_orphaned", lock=lock) for lock in "abcd"}
        assert orphaned == dict.fromkeys("abcd", 0)

        renewals = other.locks._sessions.current().renewer._renewals
        assert renewals is not None
        renewals.cancel()  # the process is silent from now on

        async def is_orphaned() -> bool:
            await leader.observer.observe()
            return leader.samples.value("mageflow_locks_orphaned", lock="d") == 1

        await until(is_orphaned)
        assert leader.samples.value("mageflow_locks_orphaned", lock="a") == 0
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
    finally:
        for task in (first, middle, last):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def test_reading_costs_three_round_trips(process: MakeProcess, mageflow_redis: EmbeddedValkey) -> None:
    """However much is stored: the lease, the counts, the locks; a follower asks for the lease alone."""
    leader, follower = process(), process()
    for _ in range(50):
        await leader.flows.creation.sign("echo")
    await leader.observer.observe()
    await follower.observer.observe()

    async def commands(reading: Process) -> int:
        script = "return redis.call('INFO', 'commandstats')"
        before = await leader.port.command("EVAL", script, 0)
        await reading.observer.observe()
        after = await leader.port.command("EVAL", script, 0)
        return _calls(after) - _calls(before)

    assert await commands(leader) == 3
    assert await commands(follower) == 1


def _calls(info: str) -> int:
    line = next(each for each in info.splitlines() if each.startswith("cmdstat_evalsha:"))
    return int(line.partition("calls=")[2].partition(",")[0])
