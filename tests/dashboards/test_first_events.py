"""The first event of a counter is seen: by queries of boards in any Prometheus, by `increase` in a current one."""

import json
import time
from collections.abc import Generator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from dashboards.generator.boards import BOARDS
from dashboards.generator.queries import counts, expand_macros, in_range, share_in_range
from dashboards.generator.recordings import RECORDINGS
from dashboards.generator.spec import PanelSpec
from mageflow.config import Settings
from mageflow.dashboards.prometheus import call_api
from mageflow.dashboards.promql import fill_variables, scan
from mageflow.dashboards.vocabulary import metric_of
from mageflow.telemetry import Telemetry, names
from mageflow.telemetry.exposition import EndpointApp, bind
from mageflow.telemetry.guards import Guards
from tests.dashboards.prometheus_server import PROGRAM, WHY_NOT, PrometheusServer
from tests.dashboards.test_alert_rules import needs_promtool, run_promtool

WINDOW_SECONDS = 8

EAGER = {"mageflow_task_runs_total", "mageflow_task_stage_seconds_total", "mageflow_lock_acquisitions_total",
         "mageflow_lock_lease_renewals_total", "mageflow_signature_loads_total", "mageflow_signature_writes_total",
         "mageflow_deadlock_checks_total", "mageflow_telemetry_errors_total",
         "mageflow_telemetry_dropped_label_values_total"}  # fmt: skip
"""Exist with 0 from the start of a worker, and what they count happens all the time or is an error of telemetry."""

W = 'job="w", instance="a:1"'
FLOW = f'mageflow_flows_finished_total{{{W}, flow="chain", flow_name="nightly", outcome="%s"}}'


def filled(expr: str) -> str:
    return fill_variables(expand_macros(expr), rate_interval="120s", range_="120s")


@needs_promtool
@pytest.mark.parametrize(
    ("around", "case"),
    [
        ({f"up{{{W}}}": "1x50"}, "a worker that ran before"),
        ({f"up{{{W}}}": "_x10 1x40", f"process_start_time_seconds{{{W}}}": "_x10 145x40"}, "one that has just started"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_a_counter_that_appears_with_one_counts_as_one(around: dict[str, str], case: str, tmp_path: Path):
    """No series, then 1: a chain that failed in its first second. `increase` says 0 in a Prometheus without zeros."""
    series = {FLOW % "failed": "_x10 1x40", FLOW % "succeeded": "_x10 0x40", **around}
    asked = {
        counts("mageflow_flows_finished_total{F}", "outcome"): [{"labels": '{outcome="failed"}', "value": 1}],
        f"sum({in_range('mageflow_flows_finished_total{F}')})": [{"labels": "{}", "value": 1}],
        "sum(increase(mageflow_flows_finished_total{F}[R]))": [{"labels": "{}", "value": 0}],
    }
    test = {
        "interval": "15s",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {"expr": filled(expr), "eval_time": "4m", "exp_samples": expected} for expr, expected in asked.items()
        ],
    }
    assert run_promtool(tmp_path, test) == "", case


@needs_promtool
@pytest.mark.parametrize("record", [each.record for each in RECORDINGS if each.record.endswith(":p95_5m")])
def test_a_recorded_quantile_has_the_first_run(record: str, tmp_path: Path):
    """The buckets of a task or lock appear with its first run, which `rate` does not see: the alert would miss it."""
    (rule,) = [each for each in RECORDINGS if each.record == record]
    (buckets,) = {selector.metric for selector in scan(rule.expr).selectors if selector.metric.startswith("mageflow_")}
    (label,) = set(rule.labels) - {"job"}
    metric = metric_of(buckets)
    assert metric is not None
    bound = next(each for each in metric.buckets if each >= 100)
    series = {
        f"up{{{W}}}": "1x50",
        **{f'{buckets}{{{W}, {label}="a", le="{le}"}}': f"_x30 {int(le >= bound)}x20" for le in metric.buckets[:-1]},
        f'{buckets}{{{W}, {label}="a", le="+Inf"}}': "_x30 1x20",
    }
    expr = f"{rule.expr} > bool 50"
    test = {
        "interval": "15s",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {"expr": expr, "eval_time": "9m", "exp_samples": [{"labels": f'{{job="w", {label}="a"}}', "value": 1}]}
        ],
    }
    assert run_promtool(tmp_path, test) == ""


@needs_promtool
def test_a_share_without_runs_is_not_a_number(tmp_path: Path):
    """The panel then says *no runs*; with one failure it says 0 %."""
    share = share_in_range('mageflow_flows_finished_total{F,outcome="succeeded"}', "mageflow_flows_finished_total{F}")
    test = {
        "interval": "15s",
        "input_series": [
            {"series": FLOW % "failed", "values": "0x240 1x40"}, {"series": FLOW % "succeeded", "values": "0x280"},
            {"series": f"up{{{W}}}", "values": "1x280"},
        ],
        "promql_expr_test": [
            {"expr": f"count({filled(share)} != {filled(share)})", "eval_time": "50m",
             "exp_samples": [{"labels": "{}", "value": 1}]},
            {"expr": filled(share), "eval_time": "61m", "exp_samples": [{"labels": "{}", "value": 0}]},
        ],
    }  # fmt: skip
    assert run_promtool(tmp_path, test) == ""


def test_panels_of_rare_counters_see_the_first_event():
    """No panel reads a counter that may appear above 0 through `rate` or `increase` alone."""
    blind: list[str] = []
    for board in BOARDS:
        for panel in (panel for section in board.sections for panel in section.panels if panel.reads_prometheus):
            blind += [f"{board.uid}: {panel.title} ({metric})" for metric in _read_blindly(panel)]
    assert blind == []


OF_ALL = {"Mean held at once", "Queue wait p95", "Duration p50 / p95 / p99", "Queue wait", "Enqueue p95",
          "Event loop lag p99 by instance", "Signature load p99", "Deadlock detector",
          "Arrivals and starts", "Window that holds and arrivals suggest"}  # fmt: skip
"""Over all tasks or of what happens all the time: one observation more or less makes no difference there."""


def _read_blindly(panel: PanelSpec) -> set[str]:
    found: set[str] = set()
    if panel.title in OF_ALL:
        return found
    for query in panel.queries:
        expr = expand_macros(query.expr)
        for selector in scan(expr).selectors:
            metric = metric_of(selector.metric)
            if metric is not None and metric.kind != "gauge" and metric.name not in EAGER and " unless " not in expr:
                found.add(metric.name)
    return found


def test_panels_with_nothing_to_divide_say_so():
    """A stat that divides, or is a quantile, is not a number without runs."""
    stats = [
        panel
        for board in BOARDS
        for section in board.sections
        for panel in section.panels
        if panel.kind == "stat" and any("histogram_quantile" in q.expr or " / sum(" in q.expr for q in panel.queries)
    ]
    assert len(stats) >= 6
    without_runs = [panel.title for panel in stats if "worker_slots" not in panel.queries[0].expr]
    assert [panel.title for panel in stats if panel.title in without_runs and panel.empty != "no runs"] == []


@pytest.fixture
def worker() -> Generator[tuple[Telemetry, int]]:
    """The endpoint of a worker, and what it records with."""
    registry = CollectorRegistry()
    telemetry = Telemetry(Settings(), registry=registry)
    endpoint = bind("127.0.0.1", [0])
    assert endpoint is not None
    endpoint.start(
        EndpointApp(registry, seconds_since_tick=None, lock_report=None, guard=Guards(lambda _: None).exposition)
    )
    yield telemetry, endpoint.port
    endpoint.stop()


@pytest.mark.slow
@pytest.mark.skipif(PROGRAM is None, reason=WHY_NOT)
def test_a_real_prometheus_counts_the_first_event(
    worker: tuple[Telemetry, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Once, on the boards; by `increase` too if it stores zeros for created timestamps. No timestamp is a series."""
    telemetry, port = worker
    with PrometheusServer(tmp_path, ()) as prometheus:
        target = [{"targets": [f"127.0.0.1:{port}"]}]
        (prometheus.sd_dir / "worker.json").write_text(json.dumps(target))
        assert prometheus.wait_for(f'sum(up{{job="{prometheus.job}"}} offset {WINDOW_SECONDS}s)', 1.0, 60) == 1.0
        telemetry.recorder.instruments.inc(names.metrics.FLOWS_FINISHED, "chain", "nightly", "failed")
        assert prometheus.wait_for("sum(mageflow_flows_finished_total)", 1.0) == 1.0
        at = f"{time.time():.3f}"
        query = expand_macros(counts("mageflow_flows_finished_total{F}", "flow_name"))
        shown = fill_variables(query, rate_interval=f"{WINDOW_SECONDS}s", range_="1h")
        (series,) = call_api(prometheus.url, "/api/v1/query", {"query": shown, "time": at})["result"]
        assert float(series["value"][1]) == 1.0
        time.sleep(2.5)
        increased = prometheus.value("sum(increase(mageflow_flows_finished_total[1m]))")
        assert (increased > 0.5) is prometheus.stores_zeros()
        assert prometheus.query('{__name__=~".+_created"}') == []
    with capsys.disabled():
        print(f"\nincrease() of a counter that appeared with 1: {increased:.2f} (zeros: {prometheus.stores_zeros()})")
