"""Synchronous task functions: each runs in its own copy of the attempt's context variables."""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Annotated, Any

import pytest
import structlog
from hatchet_sdk import Depends
from hatchet_sdk.runnables.contextvars import ctx_hatchet_context
from opentelemetry import baggage, trace
from opentelemetry import context as otel_context
from pydantic import BaseModel

from mageflow.interceptors import Interceptor, current_attempt

tenant: ContextVar[str] = ContextVar("tenant", default="unset")
connection: ContextVar[str] = ContextVar("connection", default="unset")


class Message(BaseModel):
    user: str = ""
    raises: bool = False


class Tenant(Interceptor):
    """Sets a variable around the attempt, as a program does for its own logger."""

    @contextmanager
    def attempt(self, call: Any) -> Generator[None]:
        token = tenant.set("set by the interceptor")
        try:
            yield
        finally:
            tenant.reset(token)


async def connect(_message: Message, _ctx: Any) -> str:
    connection.set("set by the dependency")
    return "connected"


def look(message: Message) -> dict[str, Any]:
    """What a function sees. Then it leaves its marks everywhere."""
    bound = structlog.contextvars.get_contextvars()
    attempt = current_attempt.get()
    seen = {
        "tenant": tenant.get(),
        "connection": connection.get(),
        "user": bound.get("user", ""),
        "baggage": baggage.get_baggage("user"),
        "run_id": bound["run_id"],
        "is_own_run": attempt is not None and attempt.workflow_run_id == bound["run_id"],
        "has_sdk_context": ctx_hatchet_context.get() is not None,
        "span_id": f"{trace.get_current_span().get_span_context().span_id:016x}",
    }
    if message.user:
        tenant.set(message.user)
        connection.set(message.user)
        structlog.contextvars.bind_contextvars(user=message.user)
        otel_context.attach(baggage.set_baggage("user", message.user))
    if message.raises:
        raise ValueError("after the marks")
    return seen


async def test_a_function_in_a_thread_sees_what_a_coroutine_sees(make_observed, mageflow_worker):
    """Variables of interceptors, dependencies, loggers and traces go in, nothing comes out. One thread serves all."""
    observed = make_observed(interceptors=[Tenant()])

    @observed.client.task(name="coroutine")
    async def coroutine(msg: Message, connected: Annotated[str, Depends(connect)]) -> dict[str, Any]:
        return look(msg)

    @observed.client.task(name="function")
    def function(msg: Message, connected: Annotated[str, Depends(connect)]) -> dict[str, Any]:
        return look(msg)

    mageflow_worker.in_process(observed.client, "threads", workflows=[coroutine, function], slots=1)
    for task in (coroutine, function):
        with pytest.raises(Exception, match="after the marks"):
            await task.aio_run(Message(user="ada", raises=True))
        for user in ("ada", ""):
            run = await task.aio_run(Message(user=user), wait_for_result=False)
            seen = await run.aio_result()
            span_id = seen.pop("span_id")
            assert seen == {
                "tenant": "set by the interceptor",
                "connection": "set by the dependency",
                "user": "",
                "baggage": None,
                "run_id": run.workflow_run_id,
                "is_own_run": True,
                "has_sdk_context": True,
            }
            spans = observed.spans.wait_for(f"process {task.name}", 2)
            assert span_id in {f"{each.context.span_id:016x}" for each in spans}


async def test_a_batch_in_a_thread_begins_without_the_last_task(make_observed, mageflow_worker):
    """Its thread has served a traced task before: the batch is no part of that trace, and has its own fields only."""
    observed = make_observed()

    @observed.client.task(name="function")
    def function(msg: Message) -> dict[str, Any]:
        return look(msg)

    @observed.client.batch_task(
        name="batch", batch_max_size=1, batch_max_interval=timedelta(milliseconds=50), input_validator=Message
    )
    def batch(items: dict[str, Message], ctx: Any) -> dict[str, Any]:
        return {key: look(each) for key, each in items.items()}

    mageflow_worker.in_process(observed.client, "batches", workflows=[function, batch], slots=1)
    await function.aio_run(Message(user="ada"))
    seen = await batch.aio_run(Message(user="eve"))
    again = await batch.aio_run(Message())
    assert [seen["user"], again["user"]] == ["", ""]
    assert [seen["baggage"], again["baggage"]] == [None, None]
