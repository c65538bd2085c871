"""Instruments: once per registry, folded, limited, zero from the start."""

import gc
import os
import shutil
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from mageflow.config import Settings
from mageflow.interceptors import FlowStart, FlowStep, TaskDeclared
from mageflow.telemetry import Telemetry, names
from mageflow.telemetry.instruments import Instruments, instruments_for
from mageflow.testing import capture_logs, samples
from tests.telemetry.conftest import STAGGERED, TASK, Bench


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def instruments(registry: CollectorRegistry) -> Instruments:
    return instruments_for(registry, max_series=10_000)


def test_two_clients_share_the_instruments_of_one_registry(registry: CollectorRegistry):
    """A registry accepts a name once: both count into the same series, and their gauges add up."""
    clients = [Telemetry(Settings(), registry=registry) for _ in range(2)]
    for client in clients:
        client.interceptor.event(TaskDeclared(TASK))
        client.recorder.live.served = (TASK,)
        client.recorder.instruments.inc(names.metrics.TASK_RUNS, "send", "failed")

    seen = samples(registry)
    assert seen.value("mageflow_task_runs_total", task="send", outcome="failed") == 2.0
    assert seen.value("mageflow_task_timeout_seconds", task="send") == 30.0, "a configured value is not added up"


def test_two_registries_know_nothing_of_each_other(make_bench):
    """Two clients in one process, each with a registry of its own."""
    one, other = make_bench(), make_bench()
    one.run(one.attempt(), outcome="succeeded")

    assert one.samples.value("mageflow_task_runs_total", task="send", outcome="succeeded") == 1.0
    assert len(other.samples) == 0


def test_a_registry_that_is_dropped_is_collected():
    """Remembering instruments by registry keeps no registry alive."""
    registry = CollectorRegistry()
    instruments_for(registry, max_series=100).inc(names.metrics.TASK_RUNS, "x", "failed")
    gone = weakref.ref(registry)
    del registry
    gc.collect()

    assert gone() is None


def test_other_rooms_add_gauges_of_their_own(bench: Bench):
    """Before or after the instruments exist; two sources of one gauge are added up, ages are not."""

    class Locks:
        def samples(self):
            yield names.metrics.LOCK_WAITERS, ("ledger", "send"), 2.0
            yield names.metrics.LOCK_OLDEST_WAIT, ("ledger", "send"), 7.0

    bench.telemetry.recorder.add_gauges(Locks())
    bench.run(bench.attempt(), outcome="succeeded")
    bench.telemetry.recorder.add_gauges(Locks())

    assert bench.samples.value("mageflow_lock_waiters", lock="ledger", task="send") == 4.0
    assert bench.samples.value("mageflow_lock_oldest_wait_seconds", lock="ledger", task="send") == 7.0


def test_a_client_that_is_dropped_reports_no_gauges(registry: CollectorRegistry):
    """Its live table goes with it."""
    client = Telemetry(Settings(), registry=registry)
    client.recorder.live.served = (TASK,)
    assert client.recorder.instruments
    assert samples(registry).total("mageflow_task_timeout_seconds") == 30.0
    del client
    gc.collect()

    assert samples(registry).total("mageflow_task_timeout_seconds") == 0.0


def test_counters_of_a_served_task_exist_before_the_first_event(instruments: Instruments, registry: CollectorRegistry):
    """Its attempts, stages and direct enqueues, and all counters of the process that have closed labels only."""
    instruments.allow_task("crowd")
    instruments.zero_worker("crowd", is_staggered=True)
    instruments.zero_producer("crowd")

    seen = samples(registry)
    for metric in names.METRICS:
        if metric.kind == "counter" and metric.closed and {*metric.labels} - {*metric.closed} <= {"task"}:
            expected = 1
            for values in metric.closed.values():
                expected *= len(values)
            if metric is names.metrics.TASKS_ENQUEUED:
                expected = len(names.metrics.OK_ERROR)
            series = [key for key in seen if key[0] == metric.name and ("task", names.metrics.EVENT_TASK) not in key[1]]
            assert len(series) == expected, metric.name
            assert {seen[key] for key in series} == {0.0}, metric.name


def test_the_first_folded_value_is_seen_to_grow(bench: Bench):
    """Every label that can be folded is counted from 0, or the alert about it would miss the first."""
    bench.run(bench.attempt(), outcome="succeeded")
    name = "mageflow_telemetry_dropped_label_values_total"
    before = bench.samples.by("label", name)
    instruments = bench.telemetry.recorder.instruments
    for number in range(51):
        instruments.inc(names.metrics.TASK_FAILURES, "send", f"Error{number}")
    instruments.inc(names.metrics.TASK_RUNS, "undeclared", "failed")

    grown = {label: value for label, value in bench.samples.by("label", name).items() if value}
    assert set(before.values()) == {0.0}
    assert grown == {"exception": 1.0, "task": 1.0}
    assert set(grown) <= set(before)


def test_enqueues_of_every_declared_task_are_there_after_the_first(bench: Bench):
    """Under the name they are enqueued by: a workflow's, which is not its tasks'."""
    bench.enqueue("crowd")

    seen = bench.samples
    assert seen.value("mageflow_tasks_enqueued_total", task="crowd", source="direct", result="ok") == 1.0
    assert seen.value("mageflow_tasks_enqueued_total", task="send-workflow", source="direct", result="ok") == 0.0
    assert ("task", "send-workflow") in {pair for key in seen for pair in key[1]}
    assert ("task", "send") not in {pair for key in seen for pair in key[1]}, "a task of a workflow is not enqueued"


def test_a_flow_that_has_started_can_be_seen_to_end(bench: Bench):
    """Its outcomes are counted from 0 where it starts and where its steps are admitted; names stay limited."""
    start = FlowStart("chain", "flow-1", "signup")
    with bench.interceptor.start_flow(start):
        start.started, start.steps = True, 3
    assert bench.samples.by("outcome", "mageflow_flows_finished_total", flow_name="signup") == dict.fromkeys(
        names.metrics.FLOW_OUTCOMES, 0.0
    )
    for number in range(150):
        bench.interceptor.event(FlowStep("swarm", f"flow-{number}", f"named-{number}", 0, None))
    assert len(bench.samples.by("flow_name", "mageflow_flows_started_total")) == names.metrics.LABEL_LIMITS["flow_name"]
    assert bench.samples.total("mageflow_telemetry_dropped_label_values_total") == 0.0


def test_a_lock_is_created_with_its_counters(instruments: Instruments, registry: CollectorRegistry):
    """Declared names only; an undeclared one is folded."""
    instruments.allow_lock("ledger")
    assert set(samples(registry).by("outcome", "mageflow_lock_acquisitions_total", lock="ledger")) == set(
        names.metrics.ACQUISITION_OUTCOMES
    )
    instruments.inc(names.metrics.LOCK_ACQUISITIONS, "ledger/42", "acquired")

    assert samples(registry).value("mageflow_lock_acquisitions_total", lock="__other__", outcome="acquired") == 1.0


def test_free_labels_fold_when_they_are_full(instruments: Instruments, registry: CollectorRegistry):
    """Fifty exception classes; the rest is one series, counted, and logged once."""
    instruments.allow_task("send")
    with capture_logs() as logs:
        for number in range(60):
            instruments.inc(names.metrics.TASK_FAILURES, "send", f"Error{number}")
        instruments.inc(names.metrics.TASK_FAILURES, "send", "Error0")

    seen = samples(registry)
    assert len(seen.by("exception", "mageflow_task_failures_total")) == 51
    assert seen.value("mageflow_task_failures_total", task="send", exception="__other__") == 10.0
    assert seen.value("mageflow_task_failures_total", task="send", exception="Error0") == 2.0
    assert seen.value("mageflow_telemetry_dropped_label_values_total", label="exception") == 10.0
    assert [event["label"] for event in logs.named("mageflow.telemetry.label_folded")] == ["exception"]


def test_a_word_outside_of_a_closed_set_is_folded(instruments: Instruments, registry: CollectorRegistry):
    """No caller can add to a closed vocabulary."""
    instruments.allow_task("send")
    instruments.inc(names.metrics.TASK_RUNS, "send", "exploded")

    assert samples(registry).value("mageflow_task_runs_total", task="send", outcome="__other__") == 1.0


def test_the_limit_of_series_holds_for_gauges(bench: Bench, make_bench: Callable[..., Bench]):
    """A program with very many lock names: what has no room is counted, and slots and attempts are still shown."""

    class Locks:
        def samples(self):
            for number in range(3000):
                yield names.metrics.LOCK_WAITERS, (f"lock-{number}", "send"), 1.0
                yield names.metrics.LOCK_HOLDERS, (f"lock-{number}", "send"), 1.0

    small = make_bench(metrics_max_series=500)
    locks = Locks()
    for each in (small, bench):
        each.telemetry.recorder.add_gauges(locks)
        for number in range(300):
            each.telemetry.recorder.instruments.allow_lock(f"lock-{number}")
        each.telemetry.recorder.live.served = (TASK,)

    seen = small.samples
    assert len(seen) <= 500
    assert seen.value("mageflow_task_timeout_seconds", task="send") == 30.0
    assert seen.value("mageflow_worker_slots_used", pool="default") == 0.0
    assert seen.value("mageflow_lock_waiters", lock="lock-0", task="send") == 1.0
    assert seen.value("mageflow_telemetry_dropped_label_values_total", label="__series__") > 5000.0
    assert len(bench.samples) <= 50_000


def test_exemplars_come_from_sampled_spans_only(bench: Bench):
    """In OpenMetrics, with the ids of the attempt's own span, on the metrics that carry them and no others."""
    attempt = bench.attempt(STAGGERED, metadata=bench.enqueue("crowd"))
    bench.run(attempt, seconds=0.2, outcome="succeeded")

    span = bench.spans.one("process crowd")
    labels = f'trace_id="{span.context.trace_id:032x}"'
    with_exemplars = [line for line in generate_openmetrics(bench.registry).decode().splitlines() if " # {" in line]
    assert {line.partition("{")[0] for line in with_exemplars} == {
        "mageflow_task_run_duration_seconds_bucket",
        "mageflow_task_queue_wait_seconds_bucket",
    }
    assert all(labels in line and f'span_id="{span.context.span_id:016x}"' in line for line in with_exemplars)
    assert " # {" not in generate_latest(bench.registry).decode()


def test_no_exemplar_of_a_trace_that_is_not_sampled(bench: Bench):
    """An unsampled trace cannot be opened."""
    unsampled = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"}
    bench.run(bench.attempt(metadata=unsampled), outcome="succeeded")

    assert bench.spans.names == []
    assert " # {" not in generate_openmetrics(bench.registry).decode()
    assert bench.logs.one("mageflow.task.finished")["trace_sampled"] is False


def test_the_exposition_is_read_back_as_the_dictionary_says(bench: Bench):
    """Types, help and labels of everything exposed are those of ``names``."""
    bench.telemetry.recorder.live.served = (TASK, STAGGERED)
    bench.run(bench.attempt(metadata=bench.enqueue()), outcome="succeeded")
    known = {metric.name.removesuffix("_total"): metric for metric in names.METRICS}

    families = list(text_string_to_metric_families(generate_latest(bench.registry).decode()))
    assert len(families) > 15
    for family in families:
        metric = known[family.name]
        assert (family.type, family.documentation) == (metric.kind, metric.help)
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(metric.labels)
    assert not any("_created" in family.name for family in families)


def test_created_series_are_left_to_a_user_who_decided():
    """With ``PROMETHEUS_DISABLE_CREATED_SERIES`` set, even to false, the choice is theirs."""
    program = (
        "from prometheus_client import CollectorRegistry, metrics; "
        "from mageflow.telemetry.instruments import instruments_for; "
        "registry = CollectorRegistry(); instruments_for(registry, max_series=100); print(metrics._use_created)"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, **extra}, capture_output=True, text=True, check=True
        ).stdout.strip()
        for extra in ({}, {"PROMETHEUS_DISABLE_CREATED_SERIES": "false"})
    ]
    assert said == ["False", "True"]


def test_counting_from_many_threads_loses_nothing(instruments: Instruments, registry: CollectorRegistry):
    """Synchronous tasks enqueue from pool threads."""
    instruments.allow_task("send")

    def count() -> None:
        for number in range(500):
            instruments.inc(names.metrics.TASK_FAILURES, "send", f"Error{number % 60}")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert samples(registry).total("mageflow_task_failures_total") == 2000.0


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_has_nothing_to_say(bench: Bench):
    """About names, units, help and types of everything the instruments and gauges expose."""
    bench.telemetry.recorder.live.served = (TASK, STAGGERED)
    bench.run(bench.attempt(STAGGERED, metadata=bench.enqueue("crowd")), outcome="succeeded")
    ran = subprocess.run(
        ["promtool", "check", "metrics"], input=generate_latest(bench.registry), capture_output=True, check=False
    )

    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")
