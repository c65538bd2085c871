"""What a worker without work sends to a tracing backend, if the program instruments Redis."""

import asyncio
from typing import Any

import pytest
import redis
from opentelemetry import trace
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from pydantic import BaseModel

from mageflow import Settings
from mageflow.interceptors import Interceptor, RedisCall


class Message(BaseModel):
    x: int = 0


class RoundTrips(Interceptor):
    """Sorts round trips as an instrumentation of Redis does: a trace of its own, or none."""

    def __init__(self) -> None:
        self.traces: list[str] = []
        self.quiet: list[str] = []

    def redis(self, call: RedisCall) -> Any:
        """Suppressed, or the root of a trace."""
        is_root = not trace.get_current_span().get_span_context().is_valid
        (self.traces if is_root and is_instrumentation_enabled() else self.quiet).append(call.operation)
        return super().redis(call)


@pytest.mark.parametrize("kind", ["url", "synchronous"])
async def test_an_idle_worker_has_no_traces(make_observed, mageflow_worker, mageflow_redis, kind: str):
    """Sweeps, the election, the census and the renewals of a held lock are no traces."""
    url, seen = mageflow_redis.url, RoundTrips()
    observed = make_observed(
        url if kind == "url" else redis.Redis.from_url(url),
        interceptors=[seen],
        settings=Settings(metrics_port=0, reconcile_interval_seconds=0.1, lock_lease_seconds=4.0),
    )

    @observed.client.task(name="idle")
    async def idle(msg: Message) -> dict[str, Any]:
        return {}

    @observed.client.task(name="holds")
    async def holds(msg: Message) -> dict[str, Any]:
        async with observed.client.resource("ledger").acquire():
            await asyncio.sleep(2.0)
        return {}

    mageflow_worker.in_process(observed.client, "idle-worker", workflows=[idle, holds])
    await holds.aio_run(Message())
    assert {"due", "lock_renew", "lead"} <= set(seen.quiet)
    assert seen.traces == []


async def test_waiting_for_a_flow_has_no_traces(make_observed, mageflow_worker, mageflow_redis):
    """A caller outside of any span looks at the flow again and again: none of the looks is a trace."""
    seen = RoundTrips()
    observed = make_observed(mageflow_redis.url, interceptors=[seen], settings=Settings(metrics_port=0))

    @observed.client.task(name="quick")
    async def quick(msg: Message) -> dict[str, Any]:
        await asyncio.sleep(0.3)
        return {"x": msg.x}

    mageflow_worker.in_process(observed.client, "quick-worker", workflows=[quick])
    chain = await observed.client.chain([quick, quick], name="waited")
    seen.traces.clear()
    seen.quiet.clear()
    await chain.aio_run(Message())
    assert seen.quiet.count("load") >= 5
    assert "load" not in seen.traces
