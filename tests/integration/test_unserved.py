"""A run that no worker takes is one warning at the sender, within seconds, with what to do."""

import asyncio
import os
import signal
import sys
import threading
import time
import warnings
from typing import Any, NoReturn

import pytest
from hatchet_sdk import ClientConfig, ClientTLSConfig, Hatchet

from mageflow import Settings
from mageflow.engine import LocalEngine
from mageflow.hatchet.unserved import UnservedWatch
from mageflow.interceptors import EnqueueItem, Interceptor, RunUnserved, SwarmLeftOpen
from tests.conftest import ROOT
from tests.integration.conftest import MakeClient, until
from tests.started_program import StartedProgram

FAST = Settings(metrics_port=0, unserved_warning_seconds=0.5)


class Seen(Interceptor):
    """Keeps what was published."""

    def __init__(self) -> None:
        self.events: list[RunUnserved] = []
        self.open_swarms: list[SwarmLeftOpen] = []

    def event(self, event: Any) -> None:
        if isinstance(event, RunUnserved):
            self.events.append(event)
        if isinstance(event, SwarmLeftOpen):
            self.open_swarms.append(event)


def looking() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "mageflow-unserved"]


async def test_without_a_worker_the_sender_is_warned_once(make_observed: MakeClient, mageflow_logs):
    """Two runs of one task are one warning, with the run and the remedy."""
    with LocalEngine() as engine:
        client = make_observed(hatchet=engine.client(), settings=FAST).client

        @client.task(name="waits-for-a-worker")
        async def waits(message: dict) -> dict:
            return {}

        def warnings() -> list[dict[str, Any]]:
            found = mageflow_logs.named("mageflow.task.unserved")
            return [each for each in found if each["target"] == "waits-for-a-worker"]

        first = await waits.aio_run({}, wait_for_result=False)
        await waits.aio_run({}, wait_for_result=False)
        # A client of an earlier test may still look after its own runs.
        await until(lambda: bool(warnings()), 60)
        await until(lambda: not looking(), 60)

        [warning] = warnings()
        assert warning["level"] == "warning"
        assert warning["reason"] == "no_worker"
        assert warning["waiting_run_id"] == first.workflow_run_id
        assert "no worker is connected to Hatchet" in warning["advice"]
        assert "mageflow worker MODULE" in warning["advice"]


async def test_a_task_that_no_worker_has_is_named(make_observed: MakeClient, mageflow_engine, mageflow_worker):
    """Workers are connected, and none has the task; a task that one has is no warning, also while it is busy."""
    seen = Seen()
    client = make_observed(settings=FAST, interceptors=[seen]).client

    @client.task(name="served-and-busy")
    async def busy(message: dict) -> dict:
        await asyncio.sleep(2)
        return {}

    @client.task(name="left-out-of-the-worker")
    async def left_out(message: dict) -> dict:
        return {}

    mageflow_worker.in_process(client, "not-complete", workflows=[busy], slots=1)
    running = [await busy.aio_run({}, wait_for_result=False) for _ in range(2)]
    await left_out.aio_run({}, wait_for_result=False)
    await until(lambda: bool(seen.events), 60)
    await asyncio.gather(*(each.aio_result() for each in running))
    await until(lambda: not looking(), 60)

    [event] = seen.events
    assert (event.task, event.reason) == ("left-out-of-the-worker", "not_served")
    assert "not-complete" in event.advice


async def test_a_misspelt_name_is_answered_with_the_near_one(
    make_observed: MakeClient, mageflow_engine, mageflow_worker, mageflow_redis
):
    """A name may be that of another program's task, so a chain is made. Its run that no worker takes has the hint."""
    seen, apart = Seen(), Seen()
    observed = make_observed(mageflow_redis.url, settings=FAST, interceptors=[seen])
    client = observed.client

    @client.task(name="packs-an-order")
    async def packs(message: dict) -> dict:
        return {}

    @client.task(name="packs-an-orders")
    async def near_and_declared(message: dict) -> dict:
        return {}

    mageflow_worker.in_process(client, "spelling", workflows=[packs])
    for step in ("packs-an-oder", "entirely-different", near_and_declared):
        await (await client.chain([step, packs])).aio_run_no_wait({})
    # A producer that has declared nothing knows the names that workers serve.
    producer = make_observed(mageflow_redis.url, settings=FAST, interceptors=[apart]).client
    await (await producer.chain(["Packs-An-Oder", "packs-an-order"])).aio_run_no_wait({})
    await until(lambda: len(seen.events) == 3 and len(apart.events) == 1, 60)

    advice = {event.task: event.advice for event in (*seen.events, *apart.events)}
    meant = {task: text.partition("did you mean ")[2] for task, text in advice.items()}
    assert meant == {
        "packs-an-oder": "'packs-an-order'?",
        "entirely-different": "",
        "packs-an-orders": "",
        "Packs-An-Oder": "'packs-an-order'?",
    }


async def test_without_hatchet_the_address_is_named(make_observed: MakeClient, mageflow_engine):
    """The SDK goes on trying; the warning comes first."""
    seen = Seen()
    config = ClientConfig(
        token=mageflow_engine.handshake.token, host_port="127.0.0.1:1", tls_config=ClientTLSConfig(strategy="none")
    )
    client = make_observed(hatchet=Hatchet(config=config), settings=FAST, interceptors=[seen]).client

    @client.task(name="sent-to-nowhere")
    async def nowhere(message: dict) -> dict:
        return {}

    sending = asyncio.create_task(nowhere.aio_run({}, wait_for_result=False))
    await until(lambda: bool(seen.events), 60)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)

    [event] = seen.events
    assert (event.reason, event.run_id) == ("unreachable", "")
    assert "Hatchet does not answer at 127.0.0.1:1" in event.advice


async def test_a_process_that_may_start_no_thread_sends_its_runs(
    make_observed: MakeClient, mageflow_engine, monkeypatch: pytest.MonkeyPatch
):
    """As when the process has too many, or the interpreter ends (Python 3.12). The run of the user failed."""
    client = make_observed(settings=FAST).client
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "mageflow-unserved":
            raise RuntimeError("can't start new thread")
        start(thread)

    @client.task(name="sent-without-a-watch")
    async def sent(message: dict) -> dict:
        return {}

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        assert (await sent.aio_run({}, wait_for_result=False)).workflow_run_id


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows does not fork")
async def test_a_forked_child_looks_up_its_own_runs(mageflow_engine):
    """The thread of the parent does not run there: no run of a child was looked up while the parent had one."""
    reads, writes = os.pipe()

    class Writes(Interceptor):
        def event(self, event: Any) -> None:
            if isinstance(event, RunUnserved):
                os.write(writes, event.task.encode())

    config = ClientConfig(
        token=mageflow_engine.handshake.token, host_port="127.0.0.1:1", tls_config=ClientTLSConfig(strategy="none")
    )
    hatchet = Hatchet(config=config)
    watch = UnservedWatch(config, hatchet.runs, hatchet.workers, Writes(), 1.0, list)
    watch.note([EnqueueItem("of-the-parent", {})])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of the parent, which this is about
        child = os.fork()
    if child == 0:
        _send_in_child(watch)
    try:
        os.set_blocking(reads, False)
        written: list[bytes] = []

        def both() -> bool:
            written.append(_read(reads))
            return len(b"".join(written)) >= len("of-the-parentof-the-child")

        await until(both, 25)
        assert b"of-the-child" in b"".join(written)
    finally:
        _kill(child)
        os.close(reads)
        os.close(writes)


def _send_in_child(watch: UnservedWatch) -> NoReturn:
    try:
        watch.note([EnqueueItem("of-the-child", {})])
        time.sleep(60)
    finally:
        os._exit(0)


def _kill(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except BlockingIOError:
        return b""


async def test_a_swarm_that_is_never_closed_is_named(
    make_observed: MakeClient, mageflow_redis, mageflow_worker, mageflow_logs
):
    """The caller would wait for ever. One warning; a swarm with items that run, or that is closed, gets none."""
    seen = Seen()
    client = make_observed(mageflow_redis.url, settings=FAST, interceptors=[seen]).client

    @client.task(name="item-of-open-swarm")
    async def item(message: dict) -> dict:
        await asyncio.sleep(message.get("seconds", 0))
        return {}

    mageflow_worker.in_process(client, "open-swarms", workflows=[item])
    closed = await client.swarm([item], "closed", closed=True)
    assert await closed.aio_run({"seconds": 2}) == [{}]
    assert seen.open_swarms == []

    swarm = await client.swarm([item, item], "left-open")
    waiting = asyncio.create_task(swarm.aio_run({}))
    await until(lambda: bool(seen.open_swarms), 60)
    await asyncio.sleep(1.5)
    await swarm.close()
    assert await asyncio.wait_for(waiting, 60) == [{}, {}]
    await client.aclose()

    [event] = seen.open_swarms
    assert (event.name, event.items) == ("left-open", 2)
    [warning] = mageflow_logs.named("mageflow.swarm.left_open")
    assert (warning["level"], warning["target"], warning["items"]) == ("warning", "left-open", 2)
    assert "await swarm.close()" in warning["advice"]


@pytest.mark.parametrize("seconds", [0.0, 2.0])
async def test_a_sender_that_ends_waits_for_nothing(make_observed: MakeClient, mageflow_engine, seconds):
    """The look-up is in a daemon thread, and 0 turns it off."""
    before = set(looking())
    settings = Settings(metrics_port=0, unserved_warning_seconds=seconds)
    client = make_observed(settings=settings).client

    @client.task(name="ends-at-once")
    async def ends(message: dict) -> dict:
        return {}

    began = time.monotonic()
    await ends.aio_run({}, wait_for_result=False)
    assert len(set(looking()) - before) == (1 if seconds else 0)
    assert all(each.daemon for each in looking())
    assert time.monotonic() - began < 20


@pytest.mark.slow
def test_a_program_that_ends_while_it_looks_ends_as_it_would(mageflow_engine: LocalEngine) -> None:
    """With its own status, at once, and without a word: the look is over before the interpreter takes itself apart."""
    environment = {**os.environ, **mageflow_engine.environment(), "PYTHONFAULTHANDLER": "1"}
    for _ in range(2):
        with StartedProgram(
            [sys.executable, "-m", "tests.integration.sends_and_ends"], cwd=ROOT, env=environment
        ) as run:
            while run.line() != "ends\n":
                pass
            began = time.monotonic()
            status, _, errors = run.ended()
            assert "Fatal Python error" not in errors, errors
            assert status == 0, errors
            assert time.monotonic() - began < 45
