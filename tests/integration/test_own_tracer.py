"""A program's own tracer does what mageflow's telemetry does, through the same hooks, and does not disturb it."""

import ast
import contextlib
import importlib.util
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from mageflow.interceptors import Interceptor
from mageflow.telemetry.interceptor import TelemetryInterceptor
from mageflow.testing.workers import running_worker
from tests.integration.conftest import Observed, until


class Order(BaseModel):
    amount: int = 1


@pytest.fixture
def datadog(root: Path, mageflow_engine: Any) -> Iterator[Any]:
    """``examples/datadog_interceptor.py``, as a program would import it."""
    spec = importlib.util.spec_from_file_location("datadog_interceptor", root / "examples" / "datadog_interceptor.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


async def run_program(observed: Observed, engine: Any, tracer: Any = None) -> None:
    """Send a staggered coroutine that takes a lock and spawns a synchronous child; then stop the worker."""
    client = observed.client
    ledger = client.resource("ledger")

    @client.task(name="charge")
    def charge(msg: Order) -> dict[str, int]:
        with tracer.trace("card.charge") if tracer is not None else contextlib.nullcontext():
            time.sleep(0.01)
        return {"charged": msg.amount}

    @client.task(name="place-order")
    @client.stagger_execution(wait_delta=timedelta(milliseconds=10))
    async def place_order(msg: Order) -> dict[str, int]:
        async with ledger.acquire():
            return await charge.aio_run(msg)

    with running_worker(engine, client, "own-tracer", workflows=[charge, place_order]):
        signature = await client.sign(place_order)
        await signature.aio_run_no_wait(Order())
        await until(lambda: observed.spans.named("process place-order"), seconds=30)


def shape(observed: Observed) -> list[tuple[str, str, list[str]]]:
    """Each span of mageflow's telemetry with its parent and its attributes' names."""
    names = {span.context.span_id: span.name for span in observed.spans}
    return sorted(
        (span.name, names.get(span.parent.span_id, "elsewhere") if span.parent else "", sorted(span.attributes))
        for span in observed.spans
        if span.instrumentation_scope.name == "mageflow"
    )


async def test_a_tracer_of_the_program_does_all_that_telemetry_does(
    make_observed, datadog, mageflow_engine, mageflow_redis, capsys
):
    """Parents across send, attempt, child and thread; events; the worker's life. mageflow's traces stay as they are."""
    without = make_observed(mageflow_redis.url)
    await run_program(without, mageflow_engine)

    tracer = datadog.Tracer()
    beside = make_observed(mageflow_redis.url, interceptors=[datadog.DatadogInterceptor(tracer)])
    await run_program(beside, mageflow_engine, tracer)

    assert list(datadog.tree(tracer.finished, 0)) == [
        "mageflow.send place-order",
        "  mageflow.process place-order [succeeded, attempt 1]",
        "    mageflow.stagger",
        "    mageflow.acquire",
        "    mageflow.send charge",
        "      mageflow.process charge [succeeded, attempt 1]",
        "        card.charge",
    ]
    assert len({span.trace_id for span in tracer.finished}) == 1
    assert tracer.metrics["mageflow.runs.succeeded"] == 2
    assert tracer.metrics["mageflow.events.ClientCreated"] == 1
    assert tracer.metrics["mageflow.events.TaskDeclared"] == 2
    assert tracer.metrics["mageflow.events.LockDeclared"] == 1
    printed = capsys.readouterr().out.splitlines()
    assert "worker started, tasks: charge, place-order" in printed
    assert "worker stopped, spans: 7" in printed

    assert shape(without) == shape(beside)
    assert {"send place-order", "process charge", "acquire ledger"} <= {name for name, _, _ in shape(beside)}


def test_telemetry_is_reached_only_through_its_interceptor(root: Path):
    """The client makes it, hands its interceptor to the chain, and reaches nothing else of it."""
    used = {
        node.attr
        for path in (root / "mageflow" / "client").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.value.attr == "telemetry"
    }
    assert used == {"interceptor"}
    own = {name for name in vars(TelemetryInterceptor) if not name.startswith("_")}
    # A function in a thread runs in a copy of the context that `execute` has set up: nothing is left to do there.
    assert own == {name for name in vars(Interceptor) if not name.startswith("_")} - {"execute_in_thread"}
