"""Background work whose error is none of mageflow's: it is logged, and goes on."""

import asyncio

import pytest

from mageflow import background
from mageflow.config import Settings
from mageflow.flows import Flows
from mageflow.interceptors import Attempt, InterceptorChain, TaskInfo, current_attempt
from mageflow.store import Keys, RedisPort, Store
from mageflow.testing.valkey import EmbeddedValkey
from tests.flows.conftest import stop, valkey, valkey_server  # noqa: F401 - fixtures
from tests.flows.fake_hatchet import FakeHatchet
from tests.flows.test_losses import begin
from tests.store.counting import RoundTrips
from tests.store.faulty_client import Faulty


async def test_heartbeats_go_on_after_an_unexpected_error(
    valkey: EmbeddedValkey,  # noqa: F811
    hatchet: FakeHatchet,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The loop ended without a word: reconcilers sent the runs of this process again while they ran."""
    client, round_trips = Faulty.from_url(valkey.url), RoundTrips()
    settings = Settings(reconcile_grace_seconds=0.05, reconcile_check_seconds=1.0, reconcile_interval_seconds=0.02)
    store = Store(RedisPort(client, InterceptorChain([round_trips])), Keys("mageflow", "test"), settings)
    flows = Flows(store, hatchet, hatchet, settings)
    await flows.start(await flows.creation.chain(["one", "two"]))
    task = TaskInfo("one", "one", execution_timeout_seconds=60, retries=0)
    token = current_attempt.set(Attempt(task, "run-0", "step-0", "here", 1, 1, {}, lambda: False))
    await begin(hatchet, flows)
    current_attempt.reset(token)
    reconciling = asyncio.create_task(flows.reconciler().run())
    async with asyncio.timeout(60):
        client.is_faulty = True
        while "the heartbeat of" not in caplog.text:
            await asyncio.sleep(0.02)
        client.is_faulty = False
        round_trips.reset()
        while round_trips.by_operation["alive"] < 2:
            await asyncio.sleep(0.02)
    reconciling.cancel()
    await asyncio.gather(reconciling, return_exceptions=True)
    await stop(flows)
    await store.port.aclose()
    await client.aclose()


async def test_a_loop_begins_again_until_it_returns(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each error is in the log with its traceback; the pauses grow."""
    monkeypatch.setattr(background, "_FIRST_PAUSE_SECONDS", 0.02)
    begins = 0

    async def fail_twice() -> None:
        nonlocal begins
        begins += 1
        if begins < 3:
            raise LookupError(f"failure {begins}")

    async with asyncio.timeout(60):
        await background.restarted(fail_twice, "the loops")
    assert begins == 3
    assert [each.getMessage() for each in caplog.records] == ["the loops failed unexpectedly and go on in 0 s"] * 2
    assert all(each.exc_info for each in caplog.records)


async def test_a_loop_does_not_begin_again_after_its_end(caplog: pytest.LogCaptureFixture) -> None:
    """What closes a room does not wait for a loop that fails."""
    closing = asyncio.Event()

    async def fail() -> None:
        closing.set()
        raise LookupError

    async with asyncio.timeout(60):
        await background.restarted(fail, "the loops", until=closing)
    assert len(caplog.records) == 1


async def test_an_error_of_other_work_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A refill, a look at an ended run: their errors were seen when the task was freed, if at all."""

    async def fail() -> None:
        raise LookupError("in the background")

    await background.logged(fail, "the refill of a swarm")
    (record,) = caplog.records
    assert record.getMessage() == "the refill of a swarm failed unexpectedly"
    assert "in the background" in caplog.text
