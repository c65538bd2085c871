"""Any part of telemetry may break: the task is not affected."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import context as otel_context
from structlog import contextvars as structlog_contextvars

from mageflow.interceptors import (
    Enqueue,
    EnqueueItem,
    RedisCall,
    SignatureLoad,
    SignatureWrite,
    Stagger,
    TimeoutExtension,
)
from mageflow.metadata import stamp
from mageflow.telemetry.instruments import Instruments
from mageflow.telemetry.spans import Spans
from tests.telemetry.conftest import STAGGERED, Bench


class BreakageError(Exception):
    """What the broken parts raise."""


def broken(*arguments: object, **keywords: object) -> Any:
    raise BreakageError


def everything(bench: Bench) -> list[str]:
    """One run with all a task can have, and what the user's code got to do meanwhile."""
    done: list[str] = []
    interceptor = bench.interceptor
    item = EnqueueItem("crowd", stamp({}, source="direct"))
    with interceptor.enqueue(Enqueue("run", [item])):
        done.append("enqueued")
    with interceptor.enqueue(Enqueue("run_many", [EnqueueItem("crowd", {}), EnqueueItem("send", {})])):
        done.append("enqueued many")
    attempt = bench.attempt(STAGGERED, metadata=item.metadata, signature_id="sig-1")
    with interceptor.attempt(attempt):
        load = SignatureLoad("task", "sig-1")
        with interceptor.load_signature(load):
            load.result = "invalid"
            done.append("loaded")
        with interceptor.stagger(Stagger(attempt, 3.0, 1.0)):
            extension = TimeoutExtension(attempt, "stagger", 1.1)
            with interceptor.extend_timeout(extension):
                extension.granted_seconds = 1.1
            done.append("slept")
        with interceptor.execute(attempt), bench.interceptor.execute_in_thread(attempt):
            done.append("ran")
        with interceptor.write_signature(SignatureWrite("task", "update", "sig-1", 10)):
            done.append("settled")
        with pytest.raises(ValueError, match="user"), interceptor.redis(RedisCall("settle")):
            raise ValueError("user")
        attempt.outcome = "succeeded"
    return done


ALL = ["enqueued", "enqueued many", "loaded", "slept", "ran", "settled"]

BREAKAGES: dict[str, tuple[str, Callable[[pytest.MonkeyPatch], None]]] = {
    "counters": ("metrics", lambda patch: patch.setattr("mageflow.telemetry.instruments._Counting.inc", broken)),
    "histograms": ("metrics", lambda patch: patch.setattr("mageflow.telemetry.instruments.bisect_left", broken)),
    "series": ("metrics", lambda patch: patch.setattr(Instruments, "_create", broken)),
    "zeros": ("metrics", lambda patch: patch.setattr(Instruments, "zero_worker", broken)),
    "tracer": ("traces", lambda patch: patch.setattr(Spans, "start", broken)),
    "span ends": ("traces", lambda patch: patch.setattr("opentelemetry.sdk.trace.Span.end", broken)),
    "span attributes": ("traces", lambda patch: patch.setattr("opentelemetry.sdk.trace.Span.set_attributes", broken)),
    "span status": ("traces", lambda patch: patch.setattr("opentelemetry.sdk.trace.Span.set_attribute", broken)),
    "attach": ("traces", lambda patch: patch.setattr(otel_context, "attach", broken)),
    "detach": ("context", lambda patch: patch.setattr(otel_context, "detach", broken)),
    "propagation": ("traces", lambda patch: patch.setattr("mageflow.telemetry.enqueues.inject", broken)),
    "arrival": ("traces", lambda patch: patch.setattr("mageflow.telemetry.attempts.arrive", broken)),
    "stamps": ("clock", lambda patch: patch.setattr("mageflow.telemetry.attempts.queue_wait_seconds", broken)),
    "binding": ("context", lambda patch: patch.setattr("mageflow.telemetry.attempts.bind", broken)),
    "unbinding": ("context", lambda patch: patch.setattr("mageflow.telemetry.attempts.unbind", broken)),
    "logger": ("logs", lambda patch: patch.setattr(logging.Logger, "makeRecord", broken)),
    "log context": ("logs", lambda patch: patch.setattr("mageflow.telemetry.logs.copy_context", broken)),
    "instrumentor": (
        "traces",
        lambda patch: patch.setattr("mageflow.telemetry.instrumentor.wraps_producer", broken),
    ),
}


@pytest.mark.parametrize("part", BREAKAGES)
def test_a_broken_part_costs_only_its_own_signal(bench: Bench, monkeypatch: pytest.MonkeyPatch, part: str):
    """The block completes, the user's own exception is the one that comes out, the failure is counted."""
    signal, breaks = BREAKAGES[part]
    with monkeypatch.context() as patch:
        breaks(patch)
        assert everything(bench) == ALL

    structlog_contextvars.clear_contextvars()  # what could not be unbound stays bound

    assert getattr(bench.telemetry.recorder.guards, signal.removesuffix("s")).total > 0
    assert len(bench.telemetry.recorder.live) == 0
    # Whole again, it works again.
    assert everything(bench) == ALL
    assert bench.samples.value("mageflow_task_runs_total", task="crowd", outcome="succeeded") >= 1.0
    if part not in ("counters", "series"):
        assert bench.samples.value("mageflow_telemetry_errors_total", signal=signal) > 0.0


def test_everything_broken_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    """Not a single signal left, and still the task runs, many times over."""
    with monkeypatch.context() as patch:
        for _, breaks in BREAKAGES.values():
            breaks(patch)
        for _ in range(150):
            assert everything(bench) == ALL

    guards = bench.telemetry.recorder.guards
    assert not guards.metric.may_record
    assert not guards.trace.may_record
    assert len(bench.telemetry.recorder.live) == 0


def test_an_exception_that_cannot_be_printed_is_contained(make_bench):
    """The user's exception may be as broken as it likes."""

    class UnprintableError(Exception):
        def __bool__(self) -> bool:
            raise BreakageError

        def __str__(self) -> str:
            raise BreakageError

    bench = make_bench(exception_detail="full")
    bench.run(bench.attempt(), UnprintableError(), outcome="failed")

    assert bench.samples.value("mageflow_task_runs_total", task="send", outcome="failed") == 1.0
    assert len(bench.telemetry.recorder.live) == 0


def test_no_scope_of_ours_hides_an_exception(bench: Bench):
    """The exception that leaves the block is the object that was raised in it."""
    error = KeyError("mine")
    with pytest.raises(KeyError) as caught, bench.interceptor.attempt(bench.attempt()):
        raise error

    assert caught.value is error
