"""Telemetry against a ledger that the task functions write themselves, over a restart and a kill of the worker.

Metrics must be exact in total, and every parent and link of a span must exist.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mageflow.engine import LocalEngine
from mageflow.testing.capture import Samples
from mageflow.testing.workers import WorkerProcess
from tests.integration.conftest import Observed, free_port, scrape, until

SCRIPT = Path(__file__).with_name("ledger_worker.py")
FLAKY_FAILURES = (0, 1, 2, 3)


def read_ledger(path: Path) -> Counter[tuple[str, str]]:
    """How often each task began and ended in each way."""
    lines = (line.split() for line in path.read_text().splitlines())
    return Counter((task, what) for task, _, what in lines)


class Workload:
    """Sends every kind of run, and knows how many."""

    def __init__(self, observed: Observed) -> None:
        self._client = observed.client
        self.sent: Counter[str] = Counter()
        self.flows = 0

    async def send(self, name: str, x: int = 0) -> Any:
        self.sent[name] += 1
        task = self._client.stubs.task(name=name, input_validator=dict, output_validator=dict)
        return await task.aio_run(input={"x": x}, wait_for_result=False)

    async def round(self) -> None:
        """Some of everything; returns when Hatchet has ended all of it."""
        plain = [("ledger-fine", x) for x in range(8)]
        plain += [("ledger-flaky", x) for x in FLAKY_FAILURES]
        plain += [("ledger-slow", 0), ("ledger-staggered", 0), ("ledger-staggered", 1), ("ledger-unsendable", 0)]
        plain += [("ledger-batch", x) for x in range(3)]
        references = [await self.send(name, x) for name, x in plain]
        chain = await self._client.chain(["ledger-step", "ledger-step", "ledger-step"], name="ledger-chain")
        await chain.aio_run_no_wait({"x": 1})
        self.flows += 1
        await asyncio.wait_for(asyncio.gather(*(each.aio_result() for each in references), return_exceptions=True), 90)
        async with asyncio.timeout(60):
            while not (await self._client.load_signature(chain.key)).has_ended:
                await asyncio.sleep(0.05)


async def idle(port: int, ended: Callable[[Samples], bool]) -> Samples:
    """The samples of a worker when it has counted what Hatchet has ended."""
    found: list[Samples] = []

    def is_idle() -> bool:
        found[:] = [scrape(port)]
        return ended(found[0])

    await until(is_idle, 30)
    return found[0]


def in_flight(port: int, task: str) -> float:
    return scrape(port).total("mageflow_tasks_in_flight", task=task, phase="running")


def total(parts: list[Samples], name: str, **labels: str) -> float:
    return sum(each.total(name, **labels) for each in parts)


@pytest.mark.slow
async def test_telemetry_agrees_with_the_ledger_over_a_restart_and_a_kill(make_observed, mageflow_redis, tmp_path):
    """Three workers, one after the other; the second is killed while it runs a task that the third finishes."""
    ledger, spans_file, port = tmp_path / "ledger", tmp_path / "spans", free_port()
    environment = {
        "MAGEFLOW_METRICS_PORT": str(port),
        "MAGEFLOW_REDIS_URL": mageflow_redis.url,
        "PYTHONPATH": str(SCRIPT.parents[2]),
    }
    with LocalEngine(worker_lost_after=5.0) as engine:
        observed = make_observed(mageflow_redis.url, hatchet=engine.client())
        work = Workload(observed)

        def worker(number: int) -> WorkerProcess:
            output = tmp_path / f"worker{number}.log"
            arguments = (str(ledger), str(spans_file))
            return WorkerProcess(engine, SCRIPT, *arguments, output=output, environment=environment)

        per_round = 8 + 9 + 1 + 2 + 1 + 3 + 3  # fine, flaky, slow, staggered, unsendable, a batch, a chain
        counted = lambda rounds, more=0: (  # noqa: E731
            lambda found: found.total("mageflow_task_runs_total") == rounds * per_round + more
        )
        parts: list[Samples] = []
        workers = [worker(number) for number in (1, 2, 3)]
        try:
            await workers[0].aio_start()
            await work.round()
            parts.append(await idle(port, counted(1)))
            assert await workers[0].aio_stop() == 0

            await workers[1].aio_start()
            await work.round()
            reference = await work.send("ledger-held")
            await until(lambda: in_flight(port, "ledger-held") == 1)
            parts.append(await idle(port, counted(1)))
            workers[1].kill()

            await workers[2].aio_start()
            await work.round()
            assert (await asyncio.wait_for(reference.aio_result(), 60))["x"] == 0
            parts.append(await idle(port, counted(1, 1)))
        finally:
            for each in workers:
                await each.aio_stop()

    written = read_ledger(ledger)
    runs = {
        (task, outcome): total(parts, "mageflow_task_runs_total", task=task, outcome=outcome)
        for task in {task for task, _ in written}
        for outcome in ("succeeded", "failed", "retried", "timed_out", "cancelled", "skipped")
    }
    assert {key: value for key, value in runs.items() if value} == {
        key: float(value) for key, value in written.items() if key[1] != "begin"
    }
    assert total(parts, "mageflow_task_runs_total") == sum(runs.values()) == 3 * per_round + 1
    begun = sum(value for (_, what), value in written.items() if what == "begin")
    assert begun == 3 * per_round + 2, "one attempt was lost with its worker: it began and never ended"

    enqueued = observed.samples
    for task, number in work.sent.items():
        assert enqueued.value("mageflow_tasks_enqueued_total", task=task, source="direct", result="ok") == number, task
    assert enqueued.total("mageflow_tasks_enqueued_total", result="error") == 0
    by_workers = total(parts, "mageflow_tasks_enqueued_total", source="chain", result="ok")
    assert by_workers + enqueued.total("mageflow_tasks_enqueued_total", source="chain") == 3 * work.flows

    for task, number in work.sent.items():
        if task != "ledger-batch":  # Hatchet does not pass the metadata of its runs
            assert total(parts, "mageflow_task_queue_wait_seconds_count", task=task) == number, task
    for task in {task for task, _ in written}:
        durations = total(parts, "mageflow_task_run_duration_seconds_count", task=task)
        assert durations == sum(runs[task, each] for each in ("succeeded", "failed", "retried", "timed_out")), task
    assert total(parts, "mageflow_task_failures_total", exception="ConnectionError") == 3 * 6
    assert total(parts, "mageflow_task_failures_total", exception="IllegalTaskOutputError") == 3 * 2
    assert total(parts, "mageflow_staggers_total", outcome="completed") == 3 * 2
    assert total(parts, "mageflow_lock_acquisitions_total", lock="shelf", outcome="acquired") == 3 * 8
    assert total(parts, "mageflow_lock_hold_seconds_count", lock="shelf") == 3 * 8
    finished = total(parts, "mageflow_flows_finished_total", flow_name="ledger-chain", outcome="succeeded")
    assert finished == work.flows == enqueued.total("mageflow_flows_started_total", flow_name="ledger-chain")
    assert total(parts, "mageflow_telemetry_errors_total") == 0
    assert total(parts, "mageflow_task_outcomes_corrected_total") == 0

    check_spans([json.loads(line) for line in spans_file.read_text().splitlines()], observed, runs)


def check_spans(written: list[dict[str, Any]], observed: Observed, runs: dict[tuple[str, str], float]) -> None:
    """One ``process`` span for each attempt, or batch, with its outcome; no parent or link leads nowhere."""
    spans = written + [json.loads(each.to_json()) for each in observed.spans]
    ids = {each["context"]["span_id"] for each in spans}
    assert len(ids) == len(spans)
    for each in spans:
        assert each["parent_id"] is None or each["parent_id"] in ids, each
        for link in each["links"]:
            assert link["context"]["span_id"] in ids, each
    process = [each for each in spans if each["kind"] == "SpanKind.CONSUMER"]
    outcomes = Counter(
        (each["attributes"]["messaging.destination.name"], each["attributes"]["mageflow.task.outcome"])
        for each in process
    )
    plain = {key: value for key, value in runs.items() if value and key[0] != "ledger-batch"}
    assert {key: value for key, value in outcomes.items() if key[0] != "ledger-batch"} == plain
    members = sum(
        each["attributes"]["messaging.batch.message_count"]
        for each in process
        if each["attributes"]["messaging.destination.name"] == "ledger-batch"
    )
    assert members == sum(value for key, value in runs.items() if key[0] == "ledger-batch")
    roots = [each for each in process if each["parent_id"] is None]
    assert {each["attributes"]["messaging.destination.name"] for each in roots} <= {"ledger-batch"}
