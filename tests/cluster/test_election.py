"""Which process exports the cluster view, and what happens when it ends."""

import asyncio
import subprocess
import sys
import time
from pathlib import Path

from opentelemetry import context as otel_context

from mageflow.interceptors import Interceptor
from mageflow.testing.capture import capture_logs
from mageflow.testing.valkey import EmbeddedValkey
from tests.cluster.conftest import MakeProcess, until

MEMBER = Path(__file__).with_name("member.py")
LEASE_KEY = "mageflow:{tests/leader}:leader"


async def test_of_two_processes_one_leads(process: MakeProcess) -> None:
    """Both ask at once and one gets the lease: it exports the gauges, the other exports that it does not lead."""
    both = [process(), process()]
    assert sorted(await asyncio.gather(*(each.observer.observe() for each in both))) == [False, True]
    leader, follower = sorted(both, key=lambda each: each.leads or 0.0, reverse=True)
    assert (leader.leads, follower.leads) == (1.0, 0.0)
    for name in ("signatures", "flows_active", "flow_oldest_active_seconds", "swarm_items", "wait_graph_size"):
        assert leader.shows(f"mageflow_{name}")
        assert not follower.shows(f"mageflow_{name}")
    assert await leader.observer.observe()
    assert not await follower.observer.observe()


async def test_nothing_is_claimed_before_the_first_reading(process: MakeProcess) -> None:
    """A process that has not asked yet neither leads nor follows."""
    assert process().leads is None


async def test_a_killed_leader_is_followed_when_its_lease_ends(
    process: MakeProcess, mageflow_redis: EmbeddedValkey
) -> None:
    """SIGKILL: the follower takes over at the end of the lease, not before it and not an interval later."""
    lease = 6.0  # an interval is two seconds then: a busy machine is not as late as that
    leader = await asyncio.create_subprocess_exec(
        sys.executable, MEMBER, mageflow_redis.url, str(lease), stdout=subprocess.PIPE
    )
    try:
        assert leader.stdout is not None
        async with asyncio.timeout(60):
            assert await leader.stdout.readline() == b"leads\n"
        follower = process(lease_seconds=lease, interval_seconds=lease / 3)
        with capture_logs() as logs:
            follower.start()
            await until(lambda: follower.leads == 0.0)
            asked_at = time.monotonic()
            left = await follower.port.command("PTTL", LEASE_KEY)
            leader.kill()
            await leader.wait()
            killed_at = time.monotonic()
            await until(lambda: follower.leads == 1.0)
            led_at = time.monotonic()
        assert led_at - killed_at < lease + lease / 4
        assert led_at - asked_at > left / 1000 - 0.1
        assert [each["state"] for each in logs.named("mageflow.cluster.leader")] == ["acquired"]
    finally:
        if leader.returncode is None:
            leader.kill()
        await leader.wait()


async def test_a_leader_that_stops_gives_the_lease_back(process: MakeProcess) -> None:
    """Shut down: the lease is released at once, and both sides log the change."""
    leader, follower = process(), process(interval_seconds=0.05)
    with capture_logs() as logs:
        leader.start()
        await until(lambda: leader.leads == 1.0)
        await leader.stop()
        assert await leader.port.command("EXISTS", LEASE_KEY) == 0
        assert leader.leads == 0.0
        follower.start()
        await until(lambda: follower.leads == 1.0)
    assert [each["state"] for each in logs.named("mageflow.cluster.leader")] == ["acquired", "lost", "acquired"]


async def test_a_follower_gives_nothing_back(process: MakeProcess) -> None:
    """Only the owner can end a lease: a follower that stops leaves it alone, and so does a late resignation."""
    leader, follower = process(), process()
    assert await leader.observer.observe()
    follower.start()
    await until(lambda: follower.leads == 0.0)
    await follower.stop()
    await follower.store.resign("another")
    assert await leader.port.command("PTTL", LEASE_KEY) > 10_000
    assert await leader.observer.observe()


async def test_with_redis_gone_numbers_fall_silent_when_the_lease_ends(
    process: MakeProcess, mageflow_redis: EmbeddedValkey
) -> None:
    """A short outage is bridged with the last reading, a longer one is not; afterwards it goes on by itself."""
    own = EmbeddedValkey().start()
    leader = process(lease_seconds=4.0, interval_seconds=0.1, url=own.url)
    try:
        with capture_logs() as logs:
            leader.start()
            await until(lambda: leader.leads == 1.0)
            own.kill()
            killed_at = time.monotonic()
            await until(lambda: leader.samples.total("mageflow_redis_errors_total", operation="lead") >= 2)
            assert time.monotonic() - killed_at > 3.0 or leader.shows("mageflow_signatures")
            await until(lambda: leader.leads == 0.0)
            assert 3.0 < time.monotonic() - killed_at < 12.0
            assert not leader.shows("mageflow_signatures")
            assert leader.task is not None
            assert not leader.task.done()
            own.start()
            await until(lambda: leader.leads == 1.0)
            assert leader.shows("mageflow_signatures")
        assert [each["state"] for each in logs.named("mageflow.cluster.leader")] == ["acquired", "lost", "acquired"]
        await leader.stop()
    finally:
        own.stop()


async def test_a_reading_is_not_believed_longer_than_its_lease(process: MakeProcess) -> None:
    """A process whose event loop stands still cannot say that it follows: the scrape finds out by itself."""
    leader = process(lease_seconds=0.3)
    assert await leader.observer.observe()
    assert leader.leads == 1.0
    await until(lambda: leader.leads == 0.0)
    assert not leader.shows("mageflow_flows_active")


async def test_a_reading_that_cannot_be_published_is_repeated(process: MakeProcess) -> None:
    """An interceptor of the program's that raises does not end the observation."""
    recorded: list[bool] = []

    class Raising(Interceptor):
        def event(self, event):
            recorded.append(event.is_leader)
            raise RuntimeError("not me")

    leader = process(interval_seconds=0.02)
    leader.observer._interceptor = Raising()
    leader.start()
    await until(lambda: len(recorded) >= 3)


async def test_readings_are_hidden_from_other_instrumentations(process: MakeProcess) -> None:
    """Polling runs with instrumentation suppressed, and the caller's context is as before."""
    seen: list[object] = []

    class Looking(Interceptor):
        def redis(self, call):
            seen.append(otel_context.get_value(otel_context._SUPPRESS_INSTRUMENTATION_KEY))
            return super().redis(call)

    leader = process()
    leader.port._round_trips._interceptor = Looking()
    assert await leader.observer.observe()
    assert len(seen) >= 3
    assert set(seen) == {True}
    assert otel_context.get_value(otel_context._SUPPRESS_INSTRUMENTATION_KEY) is None
