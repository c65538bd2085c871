"""A worker is killed inside a staggered task: another one runs it, and the endpoint returns on the same port."""

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from mageflow.engine import LocalEngine
from mageflow.testing.ports import free_port
from mageflow.testing.workers import WorkerProcess
from tests.integration.conftest import LOST_AFTER_SECONDS, scrape, until

SCRIPT = Path(__file__).with_name("staggered_worker.py")
LEDGER = Path(__file__).with_name("ledger_worker.py")
FAILING = Path(__file__).with_name("failing_worker.py")


@pytest.mark.slow
async def test_a_run_survives_its_worker_and_metrics_stay_on_their_port(tmp_path):
    """SIGKILL during the sleep: the engine notices that no heartbeat comes; another worker runs it."""
    port = free_port()
    discovery = tmp_path / "discovery"
    environment = {
        "MAGEFLOW_METRICS_PORT": str(port),
        "MAGEFLOW_METRICS_SD_DIR": str(discovery),
        "PYTHONPATH": str(SCRIPT.parents[2]),
    }
    with LocalEngine(worker_lost_after=LOST_AFTER_SECONDS) as engine:
        client = engine.client()
        first = WorkerProcess(
            engine, SCRIPT, output=tmp_path / "first.log", environment={**environment, "STAGGER_SECONDS": "60"}
        )
        second = WorkerProcess(
            engine, SCRIPT, output=tmp_path / "second.log", environment={**environment, "STAGGER_SECONDS": "0.5"}
        )
        await first.aio_start()
        try:
            task = client.stubs.task(name="staggered-victim", input_validator=dict, output_validator=dict)
            reference = await task.aio_run(input={"x": 7}, wait_for_result=False)
            await until(lambda: scrape(port).total("mageflow_tasks_in_flight", phase="stagger") == 1)
            pid = first.pid
            first.kill()
            await second.aio_start()
            result = await asyncio.wait_for(reference.aio_result(), 90)
            assert result["x"] == 7
            assert result["pid"] != pid
            assert scrape(port).value("mageflow_staggers_total", task="staggered-victim", outcome="completed") == 1
            [entry] = discovery.glob("*.json")
            assert json.loads(entry.read_text())[0]["targets"] == [f"127.0.0.1:{port}"]
        finally:
            first.kill()
            await second.aio_stop()


@pytest.mark.slow
async def test_a_worker_that_is_asked_to_stop_gives_a_staggered_run_back(tmp_path):
    """SIGTERM ends it in seconds and not after the day it sleeps; another worker runs the task."""
    port = free_port()
    environment = {"MAGEFLOW_METRICS_PORT": str(port), "PYTHONPATH": str(SCRIPT.parents[2])}
    with LocalEngine(worker_lost_after=LOST_AFTER_SECONDS) as engine:
        client = engine.client()
        first = WorkerProcess(
            engine, SCRIPT, output=tmp_path / "first.log", environment={**environment, "STAGGER_SECONDS": "86400"}
        )
        second = WorkerProcess(
            engine, SCRIPT, output=tmp_path / "second.log", environment={**environment, "STAGGER_SECONDS": "0.1"}
        )
        await first.aio_start()
        try:
            task = client.stubs.task(name="staggered-victim", input_validator=dict, output_validator=dict)
            reference = await task.aio_run(input={"x": 7}, wait_for_result=False)
            await until(lambda: scrape(port).total("mageflow_tasks_in_flight", phase="stagger") == 1)
            os.kill(first.pid, signal.SIGTERM)
            await until(lambda: first.returncode is not None)
            await second.aio_start()
            result = await asyncio.wait_for(reference.aio_result(), 90)
            assert (result["x"], result["pid"]) == (7, second.pid), "and the task has no retry to spend"
        finally:
            first.kill()
            await second.aio_stop()


@pytest.mark.slow
async def test_an_attempt_lost_with_its_worker_costs_no_retry(make_observed, mageflow_redis, tmp_path):
    """Hatchet does not count the lost attempt, and neither does the flow: it fails once, with the last attempt."""
    environment = {
        "MAGEFLOW_METRICS_PORT": "0",
        "MAGEFLOW_REDIS_URL": mageflow_redis.url,
        "PYTHONPATH": str(FAILING.parents[2]),
    }
    with LocalEngine(worker_lost_after=LOST_AFTER_SECONDS) as engine:
        client = make_observed(mageflow_redis.url, hatchet=engine.client()).client
        first = WorkerProcess(
            engine, FAILING, output=tmp_path / "first.log", environment={**environment, "FAIL_LATER": "yes"}
        )
        second = WorkerProcess(engine, FAILING, output=tmp_path / "second.log", environment=environment)
        await first.aio_start()
        try:
            chain = await client.chain(["always-fails", "always-fails"], error="after-failure")
            await chain.aio_run_no_wait()
            async with asyncio.timeout(90):
                while (await client.load_signature(chain.steps[0])).status != "active":
                    await asyncio.sleep(0.05)
            first.kill()
            await second.aio_start()
            async with asyncio.timeout(90):
                while not (ended := await client.load_signature(chain.key)).has_ended:
                    await asyncio.sleep(0.05)
            assert (ended.status, ended.last_error.message) == ("failed", "attempt 3")
            step = await client.load_signature(chain.steps[0])
            assert step.attempts == 3
            # Hatchet hears of the end a moment after Redis does.
            async with asyncio.timeout(60):
                while (status := await client.runs.aio_get_status(step.last_run.workflow_run_id)).value == "RUNNING":
                    await asyncio.sleep(0.05)
            assert status.value == "FAILED"  # and not turned away
        finally:
            first.kill()
            await second.aio_stop()


def freeze(worker: WorkerProcess) -> None:
    """Stop a worker and the process in which it listens for runs: it gets runs and begins none."""
    os.killpg(worker.pid, signal.SIGSTOP)


@pytest.mark.slow
async def test_the_queue_wait_of_a_run_whose_worker_died_before_it_began_is_counted_once(make_observed, tmp_path):
    """The worker is frozen when it is assigned the run: another one begins it as attempt 2, after all that time."""
    port, ledger = free_port(), tmp_path / "ledger"
    environment = {"MAGEFLOW_METRICS_PORT": str(port), "PYTHONPATH": str(SCRIPT.parents[2])}
    with LocalEngine(worker_lost_after=LOST_AFTER_SECONDS) as engine:
        client = make_observed(hatchet=engine.client()).client
        workers = [
            WorkerProcess(
                engine, LEDGER, str(ledger), str(tmp_path / "spans"), output=tmp_path / f"{n}.log",
                environment=environment,
            )
            for n in (1, 2)
        ]  # fmt: skip
        await workers[0].aio_start()
        try:
            held, step = (
                client.stubs.task(name=name, input_validator=dict, output_validator=dict)
                for name in ("ledger-held", "ledger-step")
            )
            freeze(workers[0])
            reference = await held.aio_run(input={"x": 7}, wait_for_result=False)
            await asyncio.sleep(1)
            workers[0].kill()
            await workers[1].aio_start()
            await asyncio.wait_for(reference.aio_result(), 90)
            name = "mageflow_task_queue_wait_seconds"
            await until(lambda: scrape(port).total(f"{name}_count", task="ledger-held") == 1)
            assert scrape(port).value(f"{name}_sum", task="ledger-held") > 1
            assert ledger.read_text().splitlines() == ["ledger-held 2 begin", "ledger-held 2 succeeded"]
            second = await step.aio_run(input={"x": 8}, wait_for_result=False)
            await asyncio.wait_for(second.aio_result(), 90)
            assert scrape(port).total(f"{name}_count") == 2
        finally:
            for each in workers:
                await each.aio_stop()


@pytest.mark.slow
async def test_the_queue_wait_of_a_retry_on_another_worker_is_not_counted(make_observed, tmp_path):
    """The first attempt began and was lost with its worker: its wait is of the run, and was counted there."""
    port = free_port()
    environment = {"MAGEFLOW_METRICS_PORT": str(port), "PYTHONPATH": str(SCRIPT.parents[2])}
    with LocalEngine(worker_lost_after=LOST_AFTER_SECONDS) as engine:
        client = make_observed(hatchet=engine.client()).client
        first = WorkerProcess(
            engine, SCRIPT, output=tmp_path / "first.log", environment={**environment, "STAGGER_SECONDS": "60"}
        )
        second = WorkerProcess(
            engine, SCRIPT, output=tmp_path / "second.log", environment={**environment, "STAGGER_SECONDS": "4"}
        )
        await first.aio_start()
        try:
            task = client.stubs.task(name="staggered-victim", input_validator=dict, output_validator=dict)
            reference = await task.aio_run(input={"x": 7}, wait_for_result=False)
            await until(lambda: scrape(port).total("mageflow_tasks_in_flight", phase="stagger") == 1)
            name, labels = "mageflow_task_queue_wait_seconds_count", {"task": "staggered-victim"}
            assert scrape(port).value(name, **labels) == 1
            first.kill()
            await second.aio_start()
            assert (await asyncio.wait_for(reference.aio_result(), 90))["attempt"] == 2
            await asyncio.sleep(1)
            assert scrape(port).total(name, **labels) == 0
        finally:
            first.kill()
            await second.aio_stop()
