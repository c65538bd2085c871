"""Quantiles as boards show them, in a real Prometheus, beside the true quantiles of what was observed."""

import json
import math
import random
import time
from collections.abc import Callable, Generator

import pytest
from prometheus_client import CollectorRegistry

from dashboards.generator.boards import BOARDS
from dashboards.generator.queries import expand_macros, quantile
from mageflow.config import Settings
from mageflow.dashboards.prometheus import call_api
from mageflow.dashboards.promql import fill_variables, scan
from mageflow.dashboards.vocabulary import metric_of
from mageflow.telemetry import Telemetry, names
from mageflow.telemetry.exposition import EndpointApp, bind
from mageflow.telemetry.guards import Guards
from mageflow.telemetry.instruments import Instruments
from mageflow.telemetry.names.metrics import METRICS, QUANTILE_ERROR, Metric
from tests.dashboards.prometheus_server import PROGRAM, WHY_NOT, PrometheusServer

WINDOW_SECONDS = 8
"""The range of the query."""

SAMPLES = 999
"""Then the 50th, 95th and 99th percentile are one observation each, with none between two."""

Draw = Callable[[random.Random], float]

DISTRIBUTIONS: dict[str, Draw] = {
    "always 1.2 s": lambda _: 1.2,
    "always 3 s": lambda _: 3.0,
    "just above a bound": lambda _: 1.0001 * 2.35,
    "around 40 ms": lambda draw: draw.lognormvariate(math.log(0.04), 0.2),
    "a long tail": lambda draw: draw.lognormvariate(math.log(0.5), 1.2),
    "hits and misses": lambda draw: 0.02 if draw.random() < 0.7 else draw.uniform(4, 6),
    "even over 3 s": lambda draw: draw.uniform(0.05, 3),
    "minutes": lambda draw: draw.gauss(400, 40),
}
"""With three bounds per power of ten, a hold of 1.2 s read as 4.6 s and a task of 3 s as 4.9 s."""


class Observed:
    """Observations in a worker's instruments, and the Prometheus that scraped them."""

    def __init__(self, prometheus: PrometheusServer, values: dict[str, list[float]], at: float) -> None:
        self._url = prometheus.url
        self._at = at
        self.values = values

    def shown(self, share: float, metric: Metric, label: str) -> dict[str, float]:
        """What the boards' query answers, by the label's value."""
        expr = expand_macros(quantile(share, f"{metric.name}_bucket{{S}}", label))
        filled = fill_variables(expr, rate_interval=f"{WINDOW_SECONDS}s", range_="1h")
        found = call_api(self._url, "/api/v1/query", {"query": filled, "time": f"{self._at:.3f}"})["result"]
        return {series["metric"][label]: float(series["value"][1]) for series in found}


def true_quantile(share: float, values: list[float]) -> float:
    """The smallest value that at least this share of the observations does not exceed."""
    ranked = sorted(values)
    return ranked[math.ceil(share * len(ranked)) - 1]


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Generator[Observed]:
    if PROGRAM is None:
        pytest.skip(WHY_NOT)
    registry = CollectorRegistry()
    telemetry = Telemetry(Settings(), registry=registry)
    app = EndpointApp(
        registry, seconds_since_tick=lambda: 0.0, lock_report=dict, guard=Guards(lambda _: None).exposition
    )
    endpoint = bind("127.0.0.1", [0])
    assert endpoint is not None
    endpoint.start(app)
    draw = random.Random(7)
    values = {name: [one(draw) for _ in range(SAMPLES)] for name, one in DISTRIBUTIONS.items()}
    try:
        with PrometheusServer(tmp_path_factory.mktemp("quantiles"), ()) as prometheus:
            target = {"targets": [f"127.0.0.1:{endpoint.port}"], "labels": {}}
            (prometheus.sd_dir / "worker.json").write_text(json.dumps([target]))
            # The series appear with all their observations in a worker that is older than the range of the query: a
            # rate would not see one of them.
            assert prometheus.wait_for(f'sum(up{{job="{prometheus.job}"}} offset {WINDOW_SECONDS}s)', 1.0, 60) == 1.0
            _observe(telemetry.recorder.instruments, values)
            # The metric that is observed last.
            count = f'sum(mageflow_stagger_delay_seconds_count{{job="{prometheus.job}"}})'
            assert prometheus.wait_for(count, float(SAMPLES * len(values))) == SAMPLES * len(values)
            yield Observed(prometheus, values, time.time())
    finally:
        endpoint.stop()


def _observe(instruments: Instruments, values: dict[str, list[float]]) -> None:
    for name, observations in values.items():
        instruments.allow_task(name)
        instruments.allow_lock(name)
        for value in observations:
            instruments.observe(names.metrics.TASK_RUN_DURATION, value, name, "ok")
            instruments.observe(names.metrics.TASK_QUEUE_WAIT, value, name)
            instruments.observe(names.metrics.LOCK_HOLD, value, name)
            instruments.observe(names.metrics.STAGGER_DELAY, value, name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("metric", "label"),
    [
        (names.metrics.TASK_RUN_DURATION, "task"), (names.metrics.TASK_QUEUE_WAIT, "task"),
        (names.metrics.LOCK_HOLD, "lock"), (names.metrics.STAGGER_DELAY, "task"),
    ],
    ids=lambda each: each.name if isinstance(each, Metric) else each,
)  # fmt: skip
def test_a_quantile_is_within_the_stated_error(
    observed: Observed, metric: Metric, label: str, capsys: pytest.CaptureFixture[str]
):
    """Of the true value, or below the first bound of the metric if the true value is."""
    lines: list[str] = []
    errors: dict[tuple[str, float], float] = {}
    for share in (0.5, 0.95, 0.99):
        shown = observed.shown(share, metric, label)
        for name, values in observed.values.items():
            true = true_quantile(share, values)
            if true < metric.buckets[0]:
                assert shown[name] <= metric.buckets[0], (name, share)
                continue
            errors[name, share] = shown[name] / true - 1
            lines.append(
                f"{name:20} p{share * 100:g}: true {true:8.3f}, shown {shown[name]:8.3f}, {errors[name, share]:+.1%}"
            )
    with capsys.disabled():
        print(f"\n{metric.name}: mean error {sum(map(abs, errors.values())) / len(errors):.1%}", *lines, sep="\n  ")
    assert max(map(abs, errors.values())) <= QUANTILE_ERROR, errors


def test_no_bound_is_further_from_the_one_before_it_than_the_error():
    """Where a board shows a quantile of the metric. A cycle has a whole number of members, so a bound is its value."""
    shown = [metric for metric in METRICS if metric.kind == "histogram" and metric.name in _with_quantiles()]
    assert len(shown) >= 5
    for metric in shown:
        for lower, upper in zip(metric.buckets, metric.buckets[1:], strict=False):
            above = lower + 1 if metric is names.metrics.DEADLOCK_CYCLE_LENGTH else lower
            assert upper / above - 1 <= QUANTILE_ERROR + 1e-9, (metric.name, lower, upper)


def _with_quantiles() -> set[str]:
    found: set[str] = set()
    for board in BOARDS:
        for section in board.sections:
            for panel in section.panels:
                for query in panel.queries if panel.reads_prometheus else ():
                    for selector in scan(expand_macros(query.expr)).selectors:
                        metric = metric_of(selector.metric)
                        if metric is not None and "histogram_quantile" in selector.calls:
                            found.add(metric.name)
    return found


def test_boards_show_quantiles_of_most_histograms():
    """So the test above looks at something."""
    assert len(_with_quantiles()) >= 10
