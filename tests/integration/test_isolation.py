"""A failure beside a task is no failure of the task, and clients in one process are independent."""

import asyncio
import contextvars
import logging
import socket
import threading
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from pydantic import BaseModel

from mageflow import Settings
from mageflow.errors import RedisNotConfiguredError, StoreUnavailableError
from mageflow.interceptors import Interceptor
from mageflow.testing.capture import capture_logs
from mageflow.testing.ports import free_port
from tests.integration.conftest import until


class Message(BaseModel):
    x: int = 0


async def test_redis_gone_leaves_plain_tasks_alone(make_observed, mageflow_worker):
    """A plain run needs no Redis; signing fails with a typed, retryable error that says what to do."""
    observed = make_observed(f"redis://127.0.0.1:{free_port()}")

    @observed.client.task(name="plain")
    @observed.client.with_signature
    async def plain(msg: Message, signature: Any) -> dict[str, Any]:
        return {"task": signature.task_name}

    mageflow_worker.in_process(observed.client, "no-redis", workflows=[plain])
    assert await plain.aio_run(Message()) == {"task": "plain"}
    with pytest.raises(StoreUnavailableError, match=r"check that the server runs") as caught:
        await observed.client.sign(plain)
    assert caught.value.retryable
    assert observed.samples.total("mageflow_redis_errors_total") >= 1


async def test_no_redis_at_all_is_said_by_the_first_operation_that_needs_it(observed):
    """The constructor raises nothing."""

    @observed.client.task(name="plain")
    async def plain(msg: Message) -> dict[str, Any]:
        return {}

    with pytest.raises(RedisNotConfiguredError, match="MAGEFLOW_REDIS_URL or REDIS_URL"):
        await observed.client.sign(plain)


async def test_a_taken_port_and_a_dead_tracing_backend_do_not_stop_a_worker(make_observed, mageflow_worker):
    """The port is taken and the exporter raises: tasks succeed, and the worker says that it serves no metrics."""
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter

    class Dead(SpanExporter):
        def export(self, spans: Any) -> Any:
            raise ConnectionError("collector gone")

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(Dead()))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = Settings(metrics_port=taken.getsockname()[1], metrics_port_span=1)
        observed = make_observed(settings=settings)

        @observed.client.task(name="plain")
        async def plain(msg: Message) -> dict[str, Any]:
            return {"x": msg.x}

        mageflow_worker.in_process(observed.client, "taken", workflows=[plain])
        assert await plain.aio_run(Message(x=3)) == {"x": 3}


async def test_a_programs_own_interceptor_stands_around_everything(make_observed, mageflow_worker):
    """Calls arrive in order, outermost first, with the values that were filled in."""
    seen: list[tuple[str, Any]] = []

    class Mine(Interceptor):
        def attempt(self, call: Any) -> Any:
            from contextlib import contextmanager

            @contextmanager
            def around() -> Any:
                seen.append(("enter", call.task.name))
                yield
                seen.append(("exit", call.outcome))

            return around()

        def enqueue(self, call: Any) -> Any:
            seen.append(("enqueue", call.items[0].task))
            call.items[0].metadata["mine"] = "yes"
            return super().enqueue(call)

    observed = make_observed(interceptors=[Mine()])

    @observed.client.task(name="plain")
    async def plain(msg: Message, ctx: Any) -> dict[str, Any]:
        return {"mine": ctx.additional_metadata["mine"]}

    mageflow_worker.in_process(observed.client, "mine", workflows=[plain])
    assert await plain.aio_run(Message()) == {"mine": "yes"}
    assert seen == [("enqueue", "plain"), ("enter", "plain"), ("exit", "succeeded")]


class _RaisesEverywhere(Interceptor):
    """Every method raises, for every operation and every event."""

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_") and name in vars(Interceptor):
            return self._raise
        return super().__getattribute__(name)

    def _raise(self, _: Any) -> Any:
        raise RuntimeError("an interceptor of the program")


async def test_an_interceptor_that_raises_fails_no_task(make_observed, mageflow_worker, mageflow_redis, caplog):
    """Coroutine, thread, signed run and lock end as without it; telemetry counts and logs its failures."""
    observed = make_observed(mageflow_redis.url, interceptors=[_RaisesEverywhere()])
    client = observed.client
    ledger = client.resource("ledger")

    @client.task(name="thread")
    def thread(msg: Message) -> dict[str, Any]:
        return {"x": msg.x}

    @client.task(name="coroutine")
    async def coroutine(msg: Message) -> dict[str, Any]:
        async with ledger.acquire():
            return {"x": msg.x}

    @client.task(name="fails")
    async def fails(msg: Message) -> None:
        raise ValueError("of the task")

    mageflow_worker.in_process(client, "raising", workflows=[thread, coroutine, fails])
    assert await thread.aio_run(Message(x=2)) == {"x": 2}
    assert await coroutine.aio_run(Message(x=3)) == {"x": 3}
    signature = await client.sign(coroutine)
    assert await signature.aio_run(Message(x=4)) == {"x": 4}
    with pytest.raises(Exception, match="of the task"):
        await fails.aio_run(Message())

    runs = observed.samples
    assert runs.value("mageflow_task_runs_total", task="coroutine", outcome="succeeded") == 2
    assert runs.value("mageflow_task_runs_total", task="thread", outcome="succeeded") == 1
    assert runs.value("mageflow_task_runs_total", task="fails", outcome="failed") == 1
    assert runs.value("mageflow_telemetry_errors_total", signal="interceptor") >= 10
    logged = {each.getMessage() for each in caplog.records if each.name == "mageflow.interceptors"}
    assert "_RaisesEverywhere.attempt raised and was ignored" in logged
    assert "_RaisesEverywhere.execute_in_thread raised and was ignored" in logged


async def test_sync_tasks_stay_off_the_loop_and_leave_no_context_behind(observed, mageflow_worker):
    """A blocking body never stalls the runner's loop; the pooled thread forgets the run afterwards."""
    import structlog
    from opentelemetry import trace

    client = observed.client
    structlog.contextvars.clear_contextvars()  # other tests of this process bind fields and never unbind them
    found: list[dict[str, Any]] = []

    blocking, released = threading.Event(), threading.Event()

    @client.task(name="sync")
    def sync(msg: Message) -> dict[str, Any]:
        blocking.set()
        assert released.wait(60), "the loop stood still while the function blocked"
        span = trace.get_current_span().get_span_context()
        found.append(
            {
                "thread": threading.get_ident(),
                "span": span.span_id,
                "task": structlog.contextvars.get_contextvars().get("task"),
            }
        )
        return {}

    @client.task(name="ticker")
    async def ticker(msg: Message) -> dict[str, Any]:
        await until(blocking.is_set)
        released.set()
        return {"thread": threading.get_ident()}

    mageflow_worker.in_process(client, "sync", slots=5, workflows=[sync, ticker])
    results = await asyncio.gather(ticker.aio_run(Message()), sync.aio_run(Message()), sync.aio_run(Message()))
    ticked = dict(results[0])
    assert {each["task"] for each in found} == {"sync"}
    assert all(each["thread"] != ticked["thread"] for each in found)
    processes = {span.context.span_id for span in observed.spans if span.name == "process sync"}
    assert {each["span"] for each in found} == processes
    assert structlog.contextvars.get_contextvars() == {}
    assert contextvars.copy_context() is not None


async def test_hatchets_log_queue_is_left_to_the_users_lines(observed, mageflow_worker, mageflow_engine):
    """Hatchet shows the user's lines and our warnings with a run; our routine events stay with the program."""
    client, root = observed.client, logging.getLogger()

    @client.task(name="talks")
    async def talks(msg: Message) -> dict[str, Any]:
        logging.getLogger("mine").info("the user's own line")
        raise ValueError(msg.x)

    before = root.level
    root.setLevel(logging.INFO)
    try:
        with capture_logs() as logs:
            mageflow_worker.in_process(client, "talks", workflows=[talks])
            reference = await talks.aio_run(Message(), wait_for_result=False)
            with pytest.raises(Exception, match="ValueError"):
                await reference.aio_result()
        found: list[str] = []

        def has_arrived() -> bool:
            rows = client.logs.list(reference.workflow_run_id).rows or []
            found[:] = [row.message for row in rows]
            return any("mageflow.task.failed" in each for each in found)

        await until(has_arrived)
    finally:
        root.setLevel(before)
    assert {"mageflow.task.started", "mageflow.task.failed"} <= set(logs.names)
    assert any("the user's own line" in each for each in found)
    assert not any("mageflow.task.started" in each for each in found)


async def test_two_clients_in_one_process_do_not_see_each_other(make_observed, mageflow_worker):
    """Two clients with different parameters, registries and tracers declare the same function, each in its own way."""
    from mageflow import AcceptParams

    first, second = make_observed(), make_observed(param_config=AcceptParams.ALL)

    async def body(msg: Message, extra: Any = None) -> dict[str, Any]:
        return {"has_ctx": extra is not None}

    one = first.client.task(name="one")(body)
    two = second.client.task(name="two")(body)
    mageflow_worker.in_process(first.client, "first", workflows=[one])
    mageflow_worker.in_process(second.client, "second", workflows=[two])
    assert await one.aio_run(Message()) == {"has_ctx": False}
    assert await two.aio_run(Message()) == {"has_ctx": True}
    assert first.samples.by("task", "mageflow_task_runs_total", outcome="succeeded") == {"one": 1}
    assert second.samples.by("task", "mageflow_task_runs_total", outcome="succeeded") == {"two": 1}
    assert {span.name for span in first.spans} == {"send one", "process one"}
    assert {span.name for span in second.spans} == {"send two", "process two"}
    assert Settings().metrics_port == 18001
