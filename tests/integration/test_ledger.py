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

from mageflow import SwarmConfig
from mageflow.engine import LocalEngine
from mageflow.testing.capture import Samples
from mageflow.testing.ports import free_port
from mageflow.testing.workers import WorkerProcess
from tests.integration.conftest import LOST_AFTER_SECONDS, Observed, scrape, until

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
        flows = [chain, await self._swarm(), await self._nested()]
        failing = await self._client.sign("ledger-item", x=1, error_callbacks=["ledger-catch"])
        await failing.aio_run_no_wait({})
        await asyncio.wait_for(asyncio.gather(*(each.aio_result() for each in references), return_exceptions=True), 90)
        async with asyncio.timeout(90):
            for flow in flows:
                while not (await self._client.load_signature(flow.key)).has_ended:
                    await asyncio.sleep(0.05)

    async def _swarm(self) -> Any:
        """Three items, of which one fails, in two places; one success callback."""
        items = [await self._client.sign("ledger-item", x=x) for x in range(3)]
        swarm = await self._client.swarm(
            items, name="ledger-swarm", config=SwarmConfig(max_concurrency=2), success_callbacks=["ledger-then"],
            closed=True,
        )  # fmt: skip
        await swarm.aio_run_no_wait({})
        return swarm

    async def _nested(self) -> Any:
        """A chain of three, whose second step is a chain of two; one success callback."""
        inner = await self._client.chain(["ledger-step", "ledger-step"], name="ledger-inner")
        outer = await self._client.chain(
            ["ledger-step", inner, "ledger-step"], name="ledger-outer", success=["ledger-then"]
        )
        await outer.aio_run_no_wait({"x": 1})
        return outer


async def idle(port: int, ended: Callable[[Samples], bool]) -> Samples:
    """The samples of a worker when it has counted what Hatchet has ended."""
    found: list[Samples] = []

    def is_idle() -> bool:
        found[:] = [scrape(port)]
        return ended(found[0])

    await until(is_idle)
    await asyncio.sleep(1)  # the last attempt is counted before its duration, its failure and its flow are
    assert is_idle()
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
    with LocalEngine(worker_lost_after=LOST_AFTER_SECONDS) as engine:
        observed = make_observed(mageflow_redis.url, hatchet=engine.client())
        work = Workload(observed)

        def worker(number: int) -> WorkerProcess:
            output = tmp_path / f"worker{number}.log"
            arguments = (str(ledger), str(spans_file))
            return WorkerProcess(engine, SCRIPT, *arguments, output=output, environment=environment)

        per_round = 8 + 9 + 1 + 2 + 1 + 3 + 3  # fine, flaky, slow, staggered, unsendable, a batch, a chain
        per_round += 3 + 4 + 1 + 3  # a swarm, a nested chain, a failing signature, their three callbacks
        counted = lambda rounds, more=0: (  # noqa: E731
            lambda found: found.total("mageflow_task_runs_total") == rounds * per_round + more
        )
        parts: list[Samples] = []
        workers = [worker(number) for number in (1, 2, 3)]
        try:
            await workers[0].aio_start()
            await work.round()
            parts.append(await idle(port, counted(1)))
            assert await workers[0].aio_stop(60) == 0

            await workers[1].aio_start()
            await work.round()
            reference = await work.send("ledger-held")
            await until(lambda: in_flight(port, "ledger-held") == 1)
            parts.append(await idle(port, counted(1)))
            workers[1].kill()

            await workers[2].aio_start()
            await work.round()
            assert (await asyncio.wait_for(reference.aio_result(), 90))["x"] == 0
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
    everyone = [*parts, enqueued]
    sent = total(everyone, "mageflow_tasks_enqueued_total", result="ok")
    assert sent == sum(runs.values()) - 3 * 5, "each run was sent once; five attempts of a round are retries"
    assert total(everyone, "mageflow_tasks_enqueued_total", source="chain") == 3 * 7

    for task, number in work.sent.items():
        if task != "ledger-batch":  # Hatchet does not pass the metadata of its runs
            assert total(parts, "mageflow_task_queue_wait_seconds_count", task=task) == number, task
    for task, number in {"ledger-step": 7, "ledger-item": 4, "ledger-then": 2, "ledger-catch": 1}.items():
        assert total(parts, "mageflow_task_queue_wait_seconds_count", task=task) == 3 * number, task
    for task in {task for task, _ in written}:
        durations = total(parts, "mageflow_task_run_duration_seconds_count", task=task)
        assert durations == sum(runs[task, each] for each in ("succeeded", "failed", "retried", "timed_out")), task
    assert total(parts, "mageflow_task_failures_total", exception="ConnectionError") == 3 * 8
    assert total(parts, "mageflow_task_failures_total", exception="IllegalTaskOutputError") == 3 * 2
    assert total(parts, "mageflow_staggers_total", outcome="completed") == 3 * 2
    assert total(parts, "mageflow_lock_acquisitions_total", lock="shelf", outcome="acquired") == 3 * 8
    assert total(parts, "mageflow_lock_hold_seconds_count", lock="shelf") == 3 * 8
    finished = total(parts, "mageflow_flows_finished_total", flow_name="ledger-chain", outcome="succeeded")
    assert finished == work.flows == enqueued.total("mageflow_flows_started_total", flow_name="ledger-chain")
    for name, kind in (("ledger-swarm", "swarm"), ("ledger-outer", "chain"), ("ledger-inner", "chain")):
        labels = {"flow": kind, "flow_name": name}
        assert total(everyone, "mageflow_flows_started_total", **labels) == 3, name
        assert total(everyone, "mageflow_flows_finished_total", **labels, outcome="succeeded") == 3, name
        assert total(everyone, "mageflow_flow_duration_seconds_count", **labels) == 3, name
    # The steps after the first of each chain, and the first of the inner one; the item that gets a place of another.
    assert total(parts, "mageflow_flow_handover_seconds_count", flow="chain") == 3 * (2 + 2 + 1)
    assert total(parts, "mageflow_flow_handover_seconds_count", flow="swarm") == 3
    assert total(everyone, "mageflow_callbacks_total", kind="success", result="enqueued") == 3 * 2
    assert total(everyone, "mageflow_callbacks_total", kind="error", result="enqueued") == 3
    assert total(everyone, "mageflow_callbacks_total", result="failed") == 0
    assert total(parts, "mageflow_telemetry_errors_total") == 0
    assert total(parts, "mageflow_task_outcomes_corrected_total") == 0

    check_spans([json.loads(line) for line in spans_file.read_text().splitlines()], observed, runs)


def check_edges(spans: list[dict[str, Any]]) -> None:
    """No parent or link leads nowhere, and no event lies outside of its span."""
    ids = {each["context"]["span_id"] for each in spans}
    assert len(ids) == len(spans)
    for each in spans:
        assert each["parent_id"] is None or each["parent_id"] in ids, each
        for link in each["links"]:
            assert link["context"]["span_id"] in ids, each
        for event in each["events"]:
            assert each["start_time"] <= event["timestamp"] <= each["end_time"], each


def check_spans(written: list[dict[str, Any]], observed: Observed, runs: dict[tuple[str, str], float]) -> None:
    """One ``process`` span for each attempt, or batch, with its outcome; no parent or link leads nowhere."""
    spans = written + [json.loads(each.to_json()) for each in observed.spans]
    check_edges(spans)
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


@pytest.mark.slow
async def test_the_runs_of_a_cron_agree_with_the_ledger_over_a_kill(tmp_path):
    """The engine's clock runs 60 times as fast: a run each second, on two workers, one after the other."""
    ledger, spans_file, port = tmp_path / "ledger", tmp_path / "spans", free_port()
    environment = {"MAGEFLOW_METRICS_PORT": str(port), "PYTHONPATH": str(SCRIPT.parents[2])}
    with LocalEngine(speed=60) as engine:
        for number in (1, 2):
            worker = WorkerProcess(
                engine, SCRIPT, str(ledger), str(spans_file), "cron",
                output=tmp_path / f"worker{number}.log", environment=environment,
            )  # fmt: skip
            before = read_ledger(ledger)["ledger-cron", "succeeded"] if ledger.exists() else 0
            try:
                await worker.aio_start()
                await until(lambda: scrape(port).total("mageflow_task_runs_total", task="ledger-cron") >= 2, 60)
                counted = scrape(port).total("mageflow_task_runs_total", task="ledger-cron", outcome="succeeded")
                waits = scrape(port).total("mageflow_task_queue_wait_seconds_count", task="ledger-cron")
                assert counted <= waits
                # Each run whose wait was counted has begun, and writes its line.
                await until(lambda: read_ledger(ledger)["ledger-cron", "succeeded"] - before >= waits)  # noqa: B023
            finally:
                worker.kill()
                await worker.aio_stop()

    spans = [json.loads(line) for line in spans_file.read_text().splitlines()]
    check_edges(spans)
    process = [each for each in spans if each["kind"] == "SpanKind.CONSUMER"]
    lost = read_ledger(ledger)["ledger-cron", "succeeded"] - len(process)
    assert 0 <= lost <= 2, "only what ended at the moment of a kill has no span"
    assert {each["attributes"]["mageflow.enqueue.source"] for each in process} == {"cron"}
    assert {each["parent_id"] for each in process} == {None}
