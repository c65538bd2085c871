"""The shop's worker and its traffic, as docker-compose.yml runs them."""

import asyncio
import contextlib
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from mageflow.cli.demo.services import start_services
from mageflow.cli.demo.session import open_workload
from mageflow.cli.demo.shop import DEADLOCK_PAIR, Expected
from mageflow.cli.demo.shop.traffic import kinds_of_work, repeat
from mageflow.telemetry.names import metrics
from mageflow.testing import WorkerProcess

pytestmark = pytest.mark.slow


def test_workload_counts_what_each_kind_of_traffic_causes(tmp_path):
    """Each kind of work, started once: the worker counts the attempts, flows, loads and callbacks that are expected."""
    with start_services(tmp_path, print) as services:

        async def start_each_kind() -> Expected:
            async with open_workload(services) as workload:
                for _, start in kinds_of_work(workload, random.Random(1)):
                    await start(1)
            return workload.expected

        expected = asyncio.run(start_each_kind())
        total, deadline = sum(expected.attempts.values()), time.monotonic() + 60
        while (found := services.samples()).total(metrics.TASK_RUNS.name) < total and time.monotonic() < deadline:
            time.sleep(0.2)

    victims = sum(found.total(metrics.TASK_RUNS.name, task=task, outcome="retried") for task in DEADLOCK_PAIR)
    assert victims == expected.attempts.pop((" or ".join(DEADLOCK_PAIR), "retried")) == 2
    assert found.total(metrics.TASK_RUNS.name) == total
    counted = {key: found.total(metrics.TASK_RUNS.name, task=key[0], outcome=key[1]) for key in expected.attempts}
    assert counted == expected.attempts
    assert {outcome for _, outcome in counted} == {"succeeded", "retried", "failed", "timed_out", "cancelled"}
    assert Counter(found.by("result", metrics.SIGNATURE_LOADS.name)) == expected.loads
    for (kind, name, outcome), count in expected.flows.items():
        labels = {"flow": kind, "flow_name": name, "outcome": outcome}
        assert found.total(metrics.FLOWS_FINISHED.name, **labels) == count, labels
    for (kind, result), count in expected.callbacks.items():
        assert found.total(metrics.CALLBACKS.name, kind=kind, result=result) == count, kind
    assert found.total(metrics.DEADLOCKS.name) == expected.deadlocks == 2


def test_worker_with_traffic_starts_runs_by_itself(mageflow_engine, mageflow_redis, tmp_path):
    """``python -m mageflow.cli.demo.shop.worker --traffic`` needs no other program, and stops when asked to."""
    environment = {"MAGEFLOW_REDIS_URL": mageflow_redis.url, "MAGEFLOW_METRICS_PORT": "0"}
    environment |= {"MAGEFLOW_METRICS_SD_DIR": str(tmp_path / "sd"), "OTEL_SERVICE_NAME": "shop-test"}
    worker = WorkerProcess(
        mageflow_engine,
        "mageflow.cli.demo.shop.worker",
        "--traffic",
        output=tmp_path / "worker.log",
        environment=environment,
    )
    with worker:
        deadline = time.monotonic() + 90
        while "mageflow.task.finished" not in worker.output() and time.monotonic() < deadline:
            time.sleep(0.2)
        assert "checkout.charge" in worker.output()
        assert worker.stop(60) == 0


async def test_traffic_ends_although_a_call_loses_its_cancellation():
    """As Python 3.11's ``wait_for`` does with one that arrives together with the answer."""
    begun = asyncio.Event()

    async def loses_it(_: int) -> None:
        begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)

    traffic = asyncio.create_task(repeat(0.01, loses_it, random.Random(1)))
    await begun.wait()
    traffic.cancel()
    done, _ = await asyncio.wait([traffic], timeout=60)
    assert done == {traffic}


def test_the_container_of_the_shop_starts_the_same_worker(root, mageflow_engine, mageflow_redis, tmp_path):
    """The command of its image, with a token from a file: it runs tasks, and SIGTERM ends the worker."""
    (tmp_path / "token").write_text(f"{mageflow_engine.environment()['HATCHET_CLIENT_TOKEN']}\n")
    environment = {name: value for name, value in os.environ.items() if name != "HATCHET_CLIENT_TOKEN"}
    environment |= {"TOKEN_FILE": str(tmp_path / "token"), "MAGEFLOW_REDIS_URL": mageflow_redis.url}
    environment |= {"MAGEFLOW_METRICS_PORT": "0", "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}"}
    log = tmp_path / "log"
    with (
        log.open("w") as output,
        subprocess.Popen(
            ["sh", str(root / "dashboards/stack/start.sh")], env=environment, stdout=output, stderr=output
        ) as run,
    ):
        try:
            deadline = time.monotonic() + 90
            while "mageflow.task.finished" not in log.read_text() and time.monotonic() < deadline:
                time.sleep(0.2)
            assert "checkout.charge" in log.read_text()
            run.terminate()
            assert run.wait(60) == 0
        finally:
            run.kill()
