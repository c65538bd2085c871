"""Boards and alerts with the data of real workers in a real Prometheus.

All tests read the results of one run of workers. The module prints how many panels have data and which alerts fired.
"""

from collections import Counter, defaultdict
from collections.abc import Generator
from typing import Any

import pytest

from dashboards.generator.alerts import alerts
from mageflow.dashboards import PanelResult, find_bundle
from mageflow.engine import LocalEngine
from mageflow.testing.valkey import EmbeddedValkey
from tests.dashboards.faulty_worker import KILLED_WORKER, REFUSED_TASK
from tests.dashboards.live_run import WORKERS, LiveRun, live_run, missing
from tests.dashboards.prometheus_server import PROGRAM, WHY_NOT

pytestmark = [
    pytest.mark.skipif(PROGRAM is None, reason=WHY_NOT),
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.new_interpreters,
]

NOT_FROM_WORKERS = {"Engine backlog by workflow", "Ends corrected by Hatchet"}
"""Hatchet's own metric, which the local engine does not export, and a table that is empty unless something is wrong."""

INCIDENTS = {
    "MageflowTaskOnlyFails", "MageflowTimeoutExtensionFailing",
    "MageflowTasksNearTimeout", "MageflowTaskTimeouts", "MageflowOrphanThreads",
    "MageflowSignatureLoadFailing", "MageflowTelemetryErrors", "MageflowLabelsFolded",
    "MageflowCallbackFailed", "MageflowWorkerUnreachable", "MageflowDeadlock", "MageflowLockLeaseLost",
}  # fmt: skip
"""Alerts whose incident the workload causes."""


TOLERATED = {
    "MageflowErrorBudgetBurn": "depends on how long the failing tasks were known",
    "MageflowErrorBudgetBurnSlow": "depends on how long the failing tasks were known",
    "MageflowLockOrphaned": "in a shortened window, one death takes as long as many in the real one",
    "MageflowClusterViewLost": "an election takes longer than the alert's wait, which is one second here",
    "MageflowLoopBlocked": "other tests on the same machine may block the event loop for a second",
}


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory, mageflow_engine: LocalEngine, mageflow_redis_server: EmbeddedValkey
) -> Generator[LiveRun]:
    mageflow_redis_server.flush()
    with live_run(tmp_path_factory.mktemp("live"), mageflow_engine, mageflow_redis_server) as driven:
        yield driven


@pytest.fixture(scope="module")
def panels(run: LiveRun) -> dict[tuple[str, str], list[PanelResult]]:
    grouped: dict[tuple[str, str], list[PanelResult]] = defaultdict(list)
    for answer in run.answers():
        grouped[answer.query.board, answer.query.panel].append(answer)
    return grouped


def by_label(run: LiveRun, expr: str, *labels: str) -> dict[Any, float]:
    """The numbers of a vector that are not 0, by the value of one label or of several."""
    found: dict[Any, float] = {}
    for series in run.prometheus.query(expr):
        if (value := float(series["value"][1])) != 0:
            values = tuple(series["metric"][label] for label in labels)
            found[values[0] if len(values) == 1 else values] = value
    return found


def test_every_panel_has_data(
    panels: dict[tuple[str, str], list[PanelResult]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each query of each panel returns a number that is not NaN, with a random job name."""
    asked = {key: group for key, group in panels.items() if key[1] not in NOT_FROM_WORKERS}
    silent = [key for key, group in asked.items() if not all(answer.series for answer in group)]
    with capsys.disabled():
        print(f"\npanels with data: {len(asked) - len(silent)} / {len(asked)}")
    assert [answer.error for group in panels.values() for answer in group if answer.error] == []
    assert silent == []


def test_attempts_are_counted_once_each(run: LiveRun) -> None:
    """The counts by task and outcome, over two workers, are exactly what the workload caused."""
    assert missing(run) == {}


def test_enqueues_are_counted_in_the_program_that_made_them(run: LiveRun) -> None:
    """A program without a worker counts the runs it sent, by source, and exports no worker_info."""
    job = run.prometheus.producer_job
    for (task, source), count in run.expected.enqueued.items():
        expr = f'sum(mageflow_tasks_enqueued_total{{job="{job}", task="{task}", source="{source}", result="ok"}})'
        assert run.prometheus.value(expr) == count, (task, source)
    assert run.prometheus.query(f'mageflow_worker_info{{job="{job}"}}') == []


def test_a_task_that_nothing_serves_is_counted_by_its_sender(run: LiveRun) -> None:
    """Once, with the reason; no task that a worker serves is among them, also not while all its slots are taken."""
    found = by_label(run, "sum by (task, reason) (mageflow_tasks_unserved_total)", "task", "reason")
    assert found == {("returns.pick_up", "not_served"): 1}


def test_increase_over_the_range_is_what_was_done(run: LiveRun) -> None:
    """``increase`` over the range counts every attempt: each counter existed with 0 before the first event."""
    seconds = int(run.ended - run.started) + 30
    for task in ("checkout.flaky", "checkout.hang", "order.ship", "stock.sync"):
        expected = sum(n for (name, _), n in run.expected.attempts.items() if name == task)
        found = run.prometheus.value(f'sum(increase(mageflow_task_runs_total{{task="{task}"}}[{seconds}s]))')
        # Prometheus extrapolates to the ends of the range: by no more than the samples' spacing over their span.
        assert found == pytest.approx(expected, rel=0.15), task


def test_extensions_are_counted_by_result(run: LiveRun) -> None:
    """Extensions of the staggered task are ok; those of the task whose requests the engine rejects are errors."""
    granted = run.expected.attempts["stock.sync", "succeeded"]
    refused = run.expected.attempts[REFUSED_TASK, "succeeded"]
    ask = 'sum(mageflow_timeout_extensions_total{{task="{}", result="{}"}})'
    assert run.prometheus.value(ask.format("stock.sync", "ok")) == granted
    assert run.prometheus.value(ask.format("stock.sync", "error")) == 0
    assert run.prometheus.value(ask.format(REFUSED_TASK, "error")) == refused
    assert run.prometheus.value(f'sum(mageflow_staggers_total{{task="{REFUSED_TASK}", outcome="completed"}})') == 0
    failed = f'sum(mageflow_staggers_total{{task="{REFUSED_TASK}", outcome="extension_failed"}})'
    assert run.prometheus.value(failed) == refused


def test_stagger_delays_lie_in_their_window(run: LiveRun) -> None:
    """All delays are within the window, and no staggered attempt timed out."""
    ask = run.prometheus.value
    window = ask('max(mageflow_stagger_window_seconds{task="stock.sync"})')
    count = ask('sum(mageflow_stagger_delay_seconds_count{task="stock.sync"})')
    mean = ask('sum(mageflow_stagger_delay_seconds_sum{task="stock.sync"})') / count
    assert window == 4
    assert count == run.expected.attempts["stock.sync", "succeeded"]
    assert 0 < mean < window
    assert ask('sum(mageflow_stagger_delay_seconds_bucket{task="stock.sync", le="4.5"})') == count
    assert ask('sum(mageflow_task_runs_total{task="stock.sync", outcome="timed_out"})') == 0


def test_signature_loads_are_counted_by_result(run: LiveRun) -> None:
    """Signed runs and steps of flows are hits; the missing, invalid and unreadable ones are those the workload made."""
    assert by_label(run, "sum by (result) (mageflow_signature_loads_total)", "result") == run.expected.loads


def test_flows_are_counted_once_each(run: LiveRun) -> None:
    """Started and finished flows by kind, name and outcome, over two workers and the program that started them."""
    finished = "sum by (flow, flow_name, outcome) (mageflow_flows_finished_total)"
    assert by_label(run, finished, "flow", "flow_name", "outcome") == run.expected.flows
    started: Counter[tuple[str, ...]] = Counter()
    for (kind, name, _), count in run.expected.flows.items():
        started[kind, name] += count
    assert by_label(run, "sum by (flow, flow_name) (mageflow_flows_started_total)", "flow", "flow_name") == started


def test_callbacks_are_counted_by_kind_and_result(run: LiveRun) -> None:
    """There is one callback for each signature and flow that has a callback for its outcome."""
    assert by_label(run, "sum by (kind, result) (mageflow_callbacks_total)", "kind", "result") == run.expected.callbacks


def test_lock_requests_are_counted_by_outcome(run: LiveRun) -> None:
    """Requests by outcome, over two workers, without those of the killed worker."""
    found = by_label(run, 'sum by (lock, outcome) (mageflow_lock_acquisitions_total{lock=~"till|vault"})',
                     "lock", "outcome")  # fmt: skip
    assert found == run.expected.locks


def test_deadlocks_are_counted_once_each(run: LiveRun) -> None:
    """There are as many deadlocks as the workload caused, each of two runs, and each victim was retried."""
    assert by_label(run, "sum by (resolution) (mageflow_deadlocks_total)", "resolution") == {
        "victim_retried": run.expected.deadlocks
    }
    assert run.prometheus.value('sum(mageflow_deadlock_cycle_length_bucket{le="2.0"})') == run.expected.deadlocks
    assert run.prometheus.value('sum(mageflow_lock_acquisitions_total{outcome="deadlock"})') == run.expected.deadlocks
    assert run.prometheus.value('sum(mageflow_deadlock_checks_total{result="cycle"})') == run.expected.deadlocks


def test_boards_say_how_many_deadlocks_there_were(
    panels: dict[tuple[str, str], list[PanelResult]], run: LiveRun
) -> None:
    """The boards show the right number although each counter first appears with the event that it counts."""
    for board in ("mageflow-overview", "mageflow-locks"):
        (answer,) = panels[board, "Deadlocks in range"]
        (series,) = answer.result
        assert float(series["value"][1]) == pytest.approx(run.expected.deadlocks, rel=0.25), board


def test_lost_leases_are_counted(run: LiveRun) -> None:
    """The lost leases are those whose session the workload deleted."""
    lost = by_label(run, 'sum by (lock) (mageflow_lock_lease_renewals_total{result="lost"})', "lock")
    assert lost == {"vault": run.lost_leases}


def test_every_end_of_an_edge_is_a_node(panels: dict[tuple[str, str], list[PanelResult]]) -> None:
    """The wait-for graph, queried while tasks waited for each other, has all edges, and a node at each end."""
    by_ref = {answer.query.ref: answer for answer in panels["mageflow-locks", "Wait-for graph"]}
    nodes = {series["metric"]["id"] for series in by_ref["nodes"].result}
    edges = [series["metric"] for series in by_ref["edges"].result]
    assert {(edge["source"], edge["target"]) for edge in edges} >= {
        ("task:order.pay", "lock:stock"), ("lock:stock", "task:order.pack"),
        ("task:order.pack", "lock:account"), ("lock:account", "task:order.pay"),
        ("task:till.count", "lock:till"), ("lock:till", "task:till.count"),
    }  # fmt: skip
    assert {edge[end] for edge in edges for end in ("source", "target")} <= nodes
    assert len({edge["id"] for edge in edges}) == len(edges)
    assert {edge["mainstat"] for edge in edges} == {"waits for", "held by"}


def test_redis_errors_are_the_ones_that_were_caused(run: LiveRun) -> None:
    """The only Redis errors are those of the signatures whose key the workload gave another type."""
    found = by_label(run, "sum by (operation) (mageflow_redis_errors_total)", "operation")
    assert found == {"admit": run.expected.loads["error"]}


def test_every_worker_is_seen_under_the_job_it_was_given(run: LiveRun) -> None:
    """Series have Prometheus's job and instance; only worker_info has the worker's own name."""
    seconds = int(run.ended - run.started) + 30
    info = run.prometheus.query(f'last_over_time(mageflow_worker_info{{job="{run.prometheus.job}"}}[{seconds}s])')
    assert sorted(series["metric"]["worker"] for series in info) == sorted(WORKERS)
    elsewhere = run.prometheus.query('{__name__=~"mageflow_.+", worker!="", __name__!="mageflow_worker_info"}')
    assert elsewhere == []


def test_exemplars_lead_to_spans_that_exist(run: LiveRun) -> None:
    """The trace and span ids of exemplars in Prometheus belong to spans that the workers exported."""
    spans = {(span.trace_id, span.span_id) for span in run.spans()}
    last = run.prometheus.query(f'last_over_time(mageflow_worker_info{{worker="{KILLED_WORKER}"}}[10m])')
    killed = {series["metric"]["instance"] for series in last}
    assert len(killed) == 1
    for metric in ("task_run_duration", "task_queue_wait", "stagger_delay", "flow_duration", "lock_wait"):
        found = run.prometheus.exemplars(f"mageflow_{metric}_seconds_bucket", run.started)
        # The killed worker could not export the span of the attempt it died in.
        lived = [series for series in found if series["seriesLabels"]["instance"] not in killed]
        ids = {(e["labels"]["trace_id"], e["labels"]["span_id"]) for series in lived for e in series["exemplars"]}
        assert ids, metric
        assert ids <= spans, metric


def test_alerts_fire_on_what_happened_and_no_others(run: LiveRun, capsys: pytest.CaptureFixture[str]) -> None:
    """Exactly the alerts of the workload's incidents fire. Windows are short here; promtool tests the real ones."""
    fired = run.prometheus.alerts_that_fired(run.started)
    with capsys.disabled():
        print(f"\nalerts fired live: {len(fired & INCIDENTS)} / {len(alerts())} ({', '.join(sorted(fired))})")
    assert fired >= INCIDENTS
    assert fired <= INCIDENTS | set(TOLERATED)


def test_check_command_reports_the_same(run: LiveRun) -> None:
    """``mageflow dashboards check --prometheus`` sends the same queries, and Prometheus rejects none."""
    from click.testing import CliRunner

    from mageflow.cli.dashboards import dashboards

    done = CliRunner().invoke(
        dashboards, ["check", "--prometheus", run.prometheus.url, "--range", "90", "--rate-interval", "15"]
    )
    assert done.exit_code == 0, done.output
    assert "panels have data" in done.output
    assert len(find_bundle().boards) == 5


def test_workers_export_their_spans(run: LiveRun) -> None:
    """There is a span for each attempt of the workers that were not killed: the exemplar test compares with these."""
    attempts = [span for span in run.spans() if span.kind == "consumer"]
    assert len(attempts) == sum(run.expected.attempts.values())
