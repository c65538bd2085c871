"""Runs of a cron that a task declares: nothing sends them, and telemetry knows what they are."""

from typing import Any

import pytest
from opentelemetry.trace import SpanKind

from mageflow.engine import LocalEngine
from mageflow.testing.workers import running_worker
from tests.integration.conftest import until


@pytest.mark.slow
async def test_the_runs_of_a_declared_cron_have_a_source_a_wait_and_a_trace(make_observed):
    """The engine's clock runs 60 times as fast, so that a minute is a second."""
    with LocalEngine(speed=60) as engine:
        observed = make_observed(hatchet=engine.client())
        client = observed.client

        @client.task(name="each-minute", on_crons=["* * * * *"])
        async def each_minute(msg: dict[str, Any]) -> dict[str, Any]:
            return {}

        runs = lambda: observed.samples.total("mageflow_task_runs_total", task="each-minute", outcome="succeeded")  # noqa: E731
        with running_worker(engine, client, "crons", workflows=[each_minute]):
            await until(lambda: runs() >= 2, 30)
        spans = [each for each in observed.spans if each.kind is SpanKind.CONSUMER]
        assert len(spans) == runs() == observed.samples.total("mageflow_task_queue_wait_seconds_count")
        assert {each.attributes["mageflow.enqueue.source"] for each in spans} == {"cron"}
        assert {(each.parent, len(each.links)) for each in spans} == {(None, 0)}
        assert len({each.context.trace_id for each in spans}) == len(spans)
