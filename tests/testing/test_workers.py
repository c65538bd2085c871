"""Workers that the plugin starts."""

import asyncio
import multiprocessing
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from mageflow.errors import EngineError
from mageflow.testing.listener_process import forked_listeners

pytestmark = [pytest.mark.new_interpreters, pytest.mark.slow]

SCRIPT = Path(__file__).with_name("greeting_worker.py")


async def test_worker_process_runs_tasks_until_it_is_stopped(mageflow_worker):
    """A script becomes a registered worker. Its runs return, and it stops with status 0."""
    worker = await mageflow_worker(SCRIPT, start=False).aio_start()
    from tests.testing import greeting_worker

    result = await greeting_worker.greet.aio_run(greeting_worker.Name(name="you"))

    assert result.text == "hello you"
    pid = worker.pid
    assert worker.start().pid == pid  # as `with WorkerProcess(...).start()` does: no second process
    assert worker.name == "greeter"
    assert "greeting you" in worker.output()
    assert await worker.aio_stop() == 0


def test_worker_that_exits_says_why(mageflow_worker):
    """A worker that exits before it is registered raises an error with the end of its output."""
    with pytest.raises(EngineError, match=r"exited with 1 before it registered:\n.*asked to fail"):
        mageflow_worker(SCRIPT, "fail")


def test_killing_a_worker_kills_its_listener_too(mageflow_worker):
    """No process of a killed worker is left that could send heartbeats."""
    worker = mageflow_worker(SCRIPT)
    group = os.getpgid(worker.pid)

    assert worker.kill() == -signal.SIGKILL
    for _ in range(3000):  # the listener is reaped by init, some milliseconds later
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            break
        threading.Event().wait(0.02)
    else:
        pytest.fail("a process of the worker is still alive")


async def test_worker_in_this_process_shares_its_objects(mageflow_worker, mageflow_engine):
    """A task of an in-process worker appends to a list of the test. Signal handlers are restored."""
    from hatchet_sdk import Context, EmptyModel, Hatchet

    seen: list[str] = []
    hatchet = Hatchet()

    @hatchet.task(name="remember")
    async def remember(_: EmptyModel, ctx: Context) -> dict[str, int]:
        seen.append(ctx.workflow_run_id)
        return {"runs": len(seen)}

    handler = signal.getsignal(signal.SIGINT)
    mageflow_worker.in_process(hatchet, "remembering", workflows=[remember])
    result = await asyncio.wait_for(remember.aio_run(), 20)

    assert result == {"runs": 1}
    assert len(seen) == 1
    assert signal.getsignal(signal.SIGINT) is handler


async def test_listeners_of_workers_in_this_process_do_not_import_the_sdk_again(mageflow_worker):
    """They are forked from a server that has imported it once."""
    from hatchet_sdk import EmptyModel, Hatchet

    hatchet = Hatchet()

    @hatchet.task(name="greet-in-process")
    async def greet(_: EmptyModel, __: Any) -> dict[str, str]:
        return {"text": "hello"}

    cpu_seconds = []
    for number in range(3):
        worker = mageflow_worker.in_process(hatchet, f"greeting-{number}", workflows=[greet])
        listener = worker.worker._action_listener_process
        assert await greet.aio_run() == {"text": "hello"}
        started = psutil.Process(listener.pid)
        used = started.cpu_times()
        cpu_seconds.append(used.user + used.system)
        server = started.parent()
        assert server.pid != os.getpid()
        assert server.ppid() == os.getpid()

    assert max(cpu_seconds) < 0.8  # an interpreter that imports the SDK takes more than 1 s; a fork takes 0.1 s


def test_forked_listener_has_the_environment_of_its_start(monkeypatch):
    """The environment of the fork server is older: variables that a test has set since then count."""
    with forked_listeners():
        context = multiprocessing.get_context("spawn")
    for number in ("1", "2"):
        monkeypatch.setenv("GREETING_NUMBER", number)
        process = context.Process(target=_exit_with_greeting_number)
        process.start()
        process.join(30)
        assert process.exitcode == int(number)


def _exit_with_greeting_number() -> None:
    sys.exit(int(os.environ["GREETING_NUMBER"]))


def test_engine_is_in_the_environment(mageflow_engine):
    """Code under test connects to the engine without configuration."""
    assert os.environ["HATCHET_CLIENT_TOKEN"] == mageflow_engine.handshake.token
    assert os.environ["HATCHET_CLIENT_TLS_STRATEGY"] == "none"
    assert os.environ["HATCHET_EMBEDDED_HANDSHAKE"]
