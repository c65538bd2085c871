"""Synchronous bodies: contexts reach their pooled thread and are gone from it afterwards."""

import contextvars
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import structlog
from opentelemetry import context as otel_context
from opentelemetry import trace

from tests.telemetry.conftest import TASK, Bench


@pytest.fixture
def pool() -> Any:
    """One thread, as a busy worker's pool would reuse it."""
    with ThreadPoolExecutor(max_workers=1) as executor:
        yield executor


def as_the_sdk_does(context: otel_context.Context, body: Any) -> Any:
    """Attach the context and never detach it (hatchet-sdk 1.43.1, ``capture_logs.copy_context_vars``)."""
    otel_context.attach(context)
    return body()


def test_a_synchronous_body_logs_and_traces_like_any_other(bench: Bench, pool: ThreadPoolExecutor):
    """Ids on its records, its spans under the attempt's."""
    attempt = bench.attempt(TASK)

    def body() -> None:
        with bench.interceptor.execute_in_thread(attempt):
            bench.telemetry.log.info("in the thread")
            bench.spans.provider.get_tracer("user").start_span("query").end()

    with bench.interceptor.attempt(attempt), bench.interceptor.execute(attempt):
        pool.submit(as_the_sdk_does, otel_context.get_current(), body).result()
        attempt.outcome = "succeeded"

    process = bench.spans.one("process send")
    recorded = bench.logs.one("in the thread")
    assert (recorded["task"], recorded["run_id"], recorded["attempt"]) == ("send", "run-1", 1)
    assert recorded["trace_id"] == f"{process.context.trace_id:032x}"
    assert recorded["span_id"] == f"{process.context.span_id:016x}"
    assert bench.spans.one("query").parent.span_id == process.context.span_id


@pytest.mark.parametrize("raises", [False, True])
def test_the_thread_is_left_clean(bench: Bench, pool: ThreadPoolExecutor, raises: bool):
    """The next task of the thread inherits neither fields nor a span, whether the body raised or not."""
    attempt = bench.attempt()

    def body() -> None:
        with bench.interceptor.execute_in_thread(attempt):
            if raises:
                raise ValueError("user")

    def look() -> tuple[Any, dict[str, Any]]:
        return trace.get_current_span(), structlog.contextvars.get_contextvars()

    with bench.interceptor.attempt(attempt), bench.interceptor.execute(attempt):
        done = pool.submit(as_the_sdk_does, otel_context.get_current(), body)
        assert isinstance(done.exception(), ValueError) == raises

    assert pool.submit(look).result() == (trace.INVALID_SPAN, {})


def test_only_what_is_ours_is_set(bench: Bench, pool: ThreadPoolExecutor):
    """Other context variables of the thread are as they were."""
    mine = contextvars.ContextVar[str]("mine", default="untouched")
    attempt = bench.attempt()

    def body() -> tuple[set[str], str]:
        mine.set("set")
        before = {variable.name for variable in contextvars.copy_context()}
        with bench.interceptor.execute_in_thread(attempt):
            inside = {variable.name for variable in contextvars.copy_context()}
        return {name for name in inside - before if not name.startswith("structlog_")}, mine.get()

    with bench.interceptor.attempt(attempt), bench.interceptor.execute(attempt):
        added, value = pool.submit(body).result()

    assert added <= {"current_context"}
    assert value == "set"


def test_a_body_that_outlived_its_attempt_still_ends(bench: Bench, pool: ThreadPoolExecutor):
    """Entering after the attempt is over does nothing and breaks nothing."""
    attempt = bench.attempt()
    bench.run(attempt, outcome="cancelled")

    def body() -> str:
        with bench.interceptor.execute_in_thread(attempt):
            return "done"

    assert pool.submit(body).result() == "done"
