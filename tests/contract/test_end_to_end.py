"""What every supported SDK must do: a task, a chain, a lock, a durable task and a signature with options.

On the local engine, with telemetry.
"""

from datetime import timedelta
from inspect import signature
from typing import Any

import pytest
from hatchet_sdk import DurableContext, Hatchet
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind
from prometheus_client import CollectorRegistry
from pydantic import BaseModel

from mageflow import Mageflow, ReturnValue, TaskSignature
from mageflow.engine import LocalEngine
from mageflow.errors import SdkFeatureError
from mageflow.testing import EmbeddedValkey, capture_spans, samples


class Order(BaseModel):
    number: int = 0
    before: ReturnValue[Any] = None  # type: ignore[assignment]


@pytest.fixture
def registry() -> CollectorRegistry:
    """What the client counts."""
    return CollectorRegistry()


@pytest.fixture
def tracer_provider() -> TracerProvider:
    """What the client traces with."""
    return TracerProvider()


@pytest.fixture
def client(
    mageflow_engine: LocalEngine,
    mageflow_redis: EmbeddedValkey,
    registry: CollectorRegistry,
    tracer_provider: TracerProvider,
) -> Mageflow:
    """A client with a real Valkey, on the local engine."""
    return Mageflow(mageflow_engine.client(), mageflow_redis.url, registry=registry, tracer_provider=tracer_provider)


async def test_an_attempt_has_a_span_and_telemetry_no_error(
    client: Mageflow, mageflow_worker: Any, registry: CollectorRegistry, tracer_provider: TracerProvider
) -> None:
    """On the event loop, in a thread, and of an attempt that fails."""

    @client.task(name="matrix-on-loop")
    async def on_loop(msg: Order) -> dict[str, int]:
        return {}

    @client.task(name="matrix-in-thread")
    def in_thread(msg: Order) -> None:
        raise ValueError("on purpose")

    with capture_spans(tracer_provider) as spans:
        mageflow_worker.in_process(client, "matrix", workflows=[on_loop, in_thread])
        await on_loop.aio_run(Order())
        with pytest.raises(Exception, match="on purpose"):
            await in_thread.aio_run(Order())
    assert sorted(each.name for each in spans if each.kind is SpanKind.CONSUMER) == [
        "process matrix-in-thread",
        "process matrix-on-loop",
    ]
    assert samples(registry).total("mageflow_telemetry_errors_total") == 0


# Some SDKs use their own deprecated names in a worker; as errors they would end the run that asks.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_a_task_a_chain_a_lock_and_a_durable_task(
    client: Mageflow, mageflow_worker: Any, registry: CollectorRegistry
) -> None:
    """And a signed task with options: results and metadata arrive, and every attempt is counted with its outcome."""
    till = client.resource("till")

    @client.task(name="matrix-double")
    async def double(msg: Order) -> dict[str, int]:
        return {"number": msg.number * 2}

    @client.task(name="matrix-pay", execution_timeout=timedelta(seconds=30))
    @client.exclusive(till)
    def pay(msg: Order) -> dict[str, Any]:
        return {"paid": msg.before}

    @client.durable_task(name="matrix-wait")
    @client.with_ctx
    async def wait(msg: Order, ctx: DurableContext) -> dict[str, Any]:
        async with till.acquire(timeout=timedelta(seconds=10)):
            await ctx.aio_sleep_for(timedelta(milliseconds=50))
        return await double.aio_run(Order(number=msg.number + 1))

    @client.task(name="matrix-fail")
    async def fail(msg: Order) -> None:
        raise ValueError("on purpose")

    @client.task(name="matrix-signature")
    @client.with_signature
    async def own(msg: Order, signature: TaskSignature) -> dict[str, Any]:
        return {"stored": signature.is_stored, "task": signature.task_name}

    both = client.workflow(name="matrix-both", input_validator=Order)
    one = both.task(name="one")(_add_one)
    both.task(name="two", parents=[one])(_add_two)
    mageflow_worker.in_process(client, "matrix", workflows=[double, pay, wait, fail, own, both], slots=5)
    assert await double.aio_run(Order(number=2)) == {"number": 4}
    assert await (await client.chain([double, pay])).aio_run(Order(number=4)) == {"paid": {"number": 8}}
    assert await wait.aio_run(Order(number=5)) == {"number": 12}
    assert await own.aio_run(Order()) == {"stored": False, "task": "matrix-signature"}
    # How a workflow ended is read from Hatchet.
    ended = await (await client.sign(both)).aio_run(Order(number=1))
    assert ended == {"one": {"number": 2}, "two": {"number": 3}}
    through = await (await client.chain([both, pay])).aio_run(Order(number=1))
    assert through == {"paid": {"one": {"number": 2}, "two": {"number": 3}}}
    signed = await client.sign(double)
    reference = await signed.aio_run_no_wait(
        Order(number=9), additional_metadata={"from": "matrix"}, priority=3, child_key="9"
    )
    assert await reference.aio_result() == {"number": 18}
    run = await client.runs.aio_get(reference.workflow_run_id)
    assert (run.run.additional_metadata or {})["from"] == "matrix"
    with pytest.raises(Exception, match="on purpose"):
        await fail.aio_run(Order())
    counted = samples(registry)
    runs = {
        task: counted.total("mageflow_task_runs_total", task=task, outcome="succeeded")
        for task in ("matrix-double", "matrix-pay", "matrix-wait")
    }
    assert runs == {"matrix-double": 4.0, "matrix-pay": 2.0, "matrix-wait": 1.0}
    assert counted.total("mageflow_task_runs_total", task="matrix-fail", outcome="failed") == 1.0
    assert counted.total("mageflow_lock_hold_seconds_count", lock="till") == 3.0


def test_what_the_sdk_lacks_is_refused_with_the_way_out(mageflow_client: Mageflow) -> None:
    """Where the SDK has it, it works; where not, the error names the versions."""
    client: Any = mageflow_client
    workflow = client.workflow(name="w")
    has_batches, has_idempotency = (
        hasattr(Hatchet, "batch_task"),
        "idempotency" in signature(Hatchet.workflow).parameters,
    )
    for is_there, use in (
        (has_batches, lambda: client.batch_task(name="b", batch_max_size=2)(_batch)),
        (has_batches, lambda: workflow.batch_task(name="b", batch_max_size=2)(_batch)),
        (has_idempotency, lambda: client.workflow(name="i", idempotency=None)),
    ):
        if is_there:
            assert use() is not None
        else:
            with pytest.raises(SdkFeatureError, match="pip install --upgrade hatchet-sdk"):
                use()


async def _add_one(msg: Order) -> dict[str, int]:
    return {"number": msg.number + 1}


async def _add_two(msg: Order) -> dict[str, int]:
    return {"number": msg.number + 2}


async def _batch(items: dict[str, Any]) -> dict[str, Any]:
    return items
