"""``/debug/runs``: single runs of this process, with ids and times and without payloads."""

import json
from typing import Any

import pytest

from mageflow.errors import CycleEdge
from mageflow.interceptors import Deadlock, Stagger
from mageflow.telemetry.recent import KEPT_ATTEMPTS
from mageflow.telemetry.spans import hashed
from tests.telemetry.conftest import STAGGERED, Bench


def report(bench: Bench) -> dict[str, Any]:
    """As the endpoint sends it."""
    return json.loads(json.dumps(bench.telemetry.recorder.run_report()))


def test_an_attempt_is_there_while_it_runs_and_after_it_ended(bench: Bench):
    """With its ids, its trace, its phase, and the seconds of each stage."""
    attempt = bench.attempt(flow_kind="chain", flow_id="f1", flow_name="order", flow_step=2)
    with bench.interceptor.attempt(attempt), bench.interceptor.execute(attempt):
        bench.clock.now += 1.5
        attempt.enter("lock_wait", "lock_wait")
        bench.clock.now += 0.25
        [running] = report(bench)["running"]
    [ended] = report(bench)["ended"]

    for found in (running, ended):
        facts = {name: found[name] for name in ("task", "run_id", "task_run_id", "attempt", "max_attempts", "worker")}
        assert facts == {
            "task": "send", "run_id": "run-1", "task_run_id": "step-1", "attempt": 1, "max_attempts": 3,
            "worker": "worker-1",
        }  # fmt: skip
        assert (found["flow"], found["flow_kind"], found["flow_id"], found["flow_step"]) == ("order", "chain", "f1", 2)
        assert found["stages"] == {"body": 1.5, "lock_wait": 0.25}
        assert found["elapsed_s"] == 1.75
        assert found["trace_id"] == f"{bench.spans.one('process send').context.trace_id:032x}"
    assert (running["phase"], running["timeout_s"], running["stagger"]) == ("lock_wait", 30.0, None)
    assert (ended["outcome"], ended["exception"], ended["will_retry"]) == ("succeeded", "", False)
    assert report(bench)["running"] == []


@pytest.mark.parametrize(("detail", "message"), [("type", ""), ("message", "secret")])
def test_an_error_is_shown_as_the_setting_allows(make_bench: Any, detail: str, message: str):
    """Its class always, its message with ``MAGEFLOW_EXCEPTION_DETAIL=message``."""
    bench = make_bench(exception_detail=detail)
    bench.run(bench.attempt(), ValueError("secret"), outcome="retried")

    [ended] = report(bench)["ended"]
    assert (ended["outcome"], ended["exception"], ended["message"]) == ("retried", "ValueError", message)
    assert ended["will_retry"]


def test_a_sleeping_attempt_shows_its_stagger(bench: Bench):
    """Its window, its delay, and how long it has slept; nothing when it has woken."""
    attempt = bench.attempt(STAGGERED)
    with bench.interceptor.attempt(attempt):
        attempt.enter("stagger", "stagger")
        with bench.interceptor.stagger(Stagger(attempt, 3.0, 1.25)):
            bench.clock.now += 0.5
            [sleeping] = report(bench)["running"]
        attempt.enter("running", "body")
        [awake] = report(bench)["running"]

    assert sleeping["stagger"] == {"window_s": 3.0, "delay_s": 1.25, "slept_s": 0.5}
    assert awake["stagger"] is None


def test_the_number_of_kept_attempts_is_limited(bench: Bench):
    """The oldest ones go. No exception is kept: it would keep its frames."""
    for number in range(KEPT_ATTEMPTS + 5):
        bench.run(bench.attempt(task_run_id=f"step-{number}"), ValueError("x"), outcome="failed")

    ended = report(bench)["ended"]
    assert [each["task_run_id"] for each in ended] == [f"step-{number}" for number in range(5, KEPT_ATTEMPTS + 5)]


@pytest.mark.parametrize(("detail", "shown"), [("hash", hashed("k 1", "hash")), ("raw", "k 1")])
def test_a_broken_deadlock_is_kept_with_its_cycle(make_bench: Any, detail: str, shown: str):
    """Resource keys are shown as in spans and logs."""
    bench = make_bench(lock_resource_detail=detail)
    edges = (CycleEdge("pay", "r1", "stock", "k 1"), CycleEdge("pack", "r2", "till", ""))
    bench.interceptor.event(Deadlock(edges, ("", ""), edges[0], "requester", "victim_retried", 0.001))

    [deadlock] = report(bench)["deadlocks"]
    assert deadlock["victim"] == {"task": "pay", "run_id": "r1"}
    assert (deadlock["policy"], deadlock["resolution"]) == ("requester", "victim_retried")
    assert deadlock["cycle"] == [
        {"task": "pay", "run_id": "r1", "lock": "stock", "resource": shown},
        {"task": "pack", "run_id": "r2", "lock": "till", "resource": ""},
    ]


def test_without_metrics_nothing_is_kept(make_bench: Any):
    """There is no endpoint then."""
    bench = make_bench(metrics=False)
    bench.run(bench.attempt())

    assert report(bench)["ended"] == []
