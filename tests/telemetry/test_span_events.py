"""Every event of a span lies between its start and its end, also where a span is written afterwards."""

import time

from mageflow.errors import CycleEdge
from mageflow.interceptors import Deadlock, OutcomeConfirmed
from tests.telemetry.conftest import Bench


def inside(bench: Bench) -> list[str]:
    """The names of all events, each compared with its span."""
    names: list[str] = []
    for span in bench.spans:
        for event in span.events:
            assert span.start_time <= event.timestamp <= span.end_time, (span.name, event.name)
            names.append(event.name)
    return names


def test_the_edges_of_a_deadlock_lie_inside_the_span_of_its_resolution(bench: Bench):
    """The span is back-dated: it ends when the deadlock was broken, before its edges are written."""
    edges = tuple(CycleEdge(f"task-{number}", f"r{number}", "stock", "k") for number in range(3))
    bench.interceptor.event(Deadlock(edges, ("", "", ""), edges[0], "requester", "victim_retried", 0.001))

    assert inside(bench) == ["mageflow.deadlock.edge"] * 3


def test_the_exception_of_an_attempt_that_is_confirmed_later_lies_inside_its_span(bench: Bench):
    """The span ends with the attempt, and Hatchet answers afterwards."""
    attempt = bench.attempt()
    bench.run(attempt, ValueError("x"), outcome="retried", is_unconfirmed=True)
    time.sleep(0.01)
    attempt.outcome = "failed"
    bench.interceptor.event(OutcomeConfirmed(attempt))

    assert inside(bench) == ["exception"]
    assert bench.spans.one("process send").attributes["mageflow.task.outcome"] == "failed"
