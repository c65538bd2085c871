"""What ``/metrics`` renders is what ``prometheus_client`` renders, and created timestamps for those who read them."""

import gzip

import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from mageflow.telemetry import names
from mageflow.telemetry.guards import Guards
from mageflow.telemetry.rendering import render
from tests.telemetry.conftest import STAGGERED, TASK, Bench

OPENMETRICS = "application/openmetrics-text;version=1.0.0"
OLD = f"{OPENMETRICS},application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
"""Of Prometheus 2.42, and of 3.16 without zero ingestion but for the versions."""
ZEROS = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,"
    f"{OPENMETRICS};escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
"""Of Prometheus 3.16 with ``created-timestamp-zero-ingestion``."""


@pytest.fixture
def busy(bench: Bench) -> Bench:
    """With counters, histograms, exemplars, gauges, labels that need escapes, and a counter of the user's own."""
    bench.telemetry.recorder.live.served = (TASK, STAGGERED)
    bench.run(bench.attempt(STAGGERED, metadata=bench.enqueue("crowd")), seconds=0.2, outcome="succeeded")
    bench.run(bench.attempt(), ValueError("x"), outcome="failed")
    bench.telemetry.recorder.instruments.inc(names.metrics.FLOWS_STARTED, "chain", 'a "b"\\c\nd')
    Counter("orders_total", "The user's own.", ["kind"], registry=bench.registry).labels("x").inc(3)
    return bench


def rendered(
    registry: CollectorRegistry, *, accept: str, accept_encoding: str = "", query: str = ""
) -> tuple[list[tuple[str, str]], bytes]:
    guard = Guards(lambda _: None).exposition
    answer = render(registry, accept=accept, accept_encoding=accept_encoding, query=query, guard=guard)
    assert not guard.total
    return answer


def text_of(registry: CollectorRegistry, accept: str, query: str = "") -> str:
    return rendered(registry, accept=accept, query=query)[1].decode()


def families(text: str, *, is_openmetrics: bool) -> dict[str, object]:
    parsed = openmetrics_families(text) if is_openmetrics else text_string_to_metric_families(text)
    return {each.name: (each.type, each.documentation, sorted(each.samples, key=_name_and_labels)) for each in parsed}


def _name_and_labels(sample: Sample) -> tuple[str, list[tuple[str, str]]]:
    return sample.name, sorted(sample.labels.items())


def test_it_is_what_the_client_library_renders(busy: Bench):
    """Families, help, types, samples, labels, values and exemplars, in both formats."""
    plain = families(text_of(busy.registry, ""), is_openmetrics=False)
    assert plain == families(generate_latest(busy.registry).decode(), is_openmetrics=False)
    rich = families(text_of(busy.registry, OLD), is_openmetrics=True)
    assert rich == families(generate_openmetrics(busy.registry).decode(), is_openmetrics=True)
    assert len(rich) > 20
    assert " # {" in text_of(busy.registry, OLD)


def test_created_timestamps_go_to_a_prometheus_that_reads_them(busy: Bench):
    """Each counter and histogram has one in the moment it appeared; without them nothing differs."""
    text = text_of(busy.registry, ZEROS)
    own = names.metrics.TASK_RUNS.name.removesuffix("_total")

    assert f'{own}_created{{task="send",outcome="failed"}} ' in text
    assert 'mageflow_task_run_duration_seconds_created{task="send",outcome="error"} ' in text
    names_of = [line.split("{")[0].split(" ")[0] for line in text.splitlines() if line.startswith("mageflow_")]
    counted = sum(each.endswith(("_total", "_count")) for each in names_of)
    assert sum(each.endswith("_created") for each in names_of) == counted
    assert list(openmetrics_families(text))
    without = [line for line in text.splitlines() if "_created" not in line]
    assert sorted(without) == sorted(text_of(busy.registry, OLD).splitlines())


@pytest.mark.parametrize("accept", ["", "text/plain;version=0.0.4", OLD])
def test_created_timestamps_go_to_no_other(busy: Bench, accept: str):
    """Another Prometheus would store each one as a series."""
    assert "_created" not in text_of(busy.registry, accept)


@pytest.mark.parametrize(("choice", "accept", "expected"), [("true", ZEROS, False), ("false", OLD, True)])
def test_the_environment_decides_about_created_timestamps(
    busy: Bench, monkeypatch: pytest.MonkeyPatch, choice: str, accept: str, expected: bool
):
    """With the variable of the client library, for a proxy that hides who asks."""
    monkeypatch.setenv("PROMETHEUS_DISABLE_CREATED_SERIES", choice)
    assert ("_created{" in text_of(busy.registry, accept)) is expected


def test_metrics_can_be_selected(busy: Bench):
    """With ``name[]``, as in every Python program that serves metrics."""
    text = text_of(busy.registry, "", "name[]=mageflow_task_runs_total&name[]=orders_total")
    assert {each.name for each in text_string_to_metric_families(text)} == {"mageflow_task_runs", "orders"}


def test_the_body_is_compressed_for_who_accepts_it(busy: Bench):
    """As Prometheus asks for."""
    headers, body = rendered(busy.registry, accept=OLD, accept_encoding="gzip")
    assert ("Content-Encoding", "gzip") in headers
    assert gzip.decompress(body).decode() == text_of(busy.registry, OLD)


def test_a_registry_in_which_nothing_was_recorded(bench: Bench):
    """The endpoint serves the metrics of others."""
    Counter("orders_total", "The user's own.", registry=bench.registry)
    assert "orders_total 0.0" in text_of(bench.registry, OLD)
    assert "mageflow_" not in text_of(bench.registry, OLD)
