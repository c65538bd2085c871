"""What an attempt holds is free when it has ended: a large input does not wait for Python's search for cycles."""

import gc
import weakref
from typing import Any

import pytest
from hatchet_sdk import Context
from pydantic import BaseModel

from tests.integration.conftest import until


class Message(BaseModel):
    x: int = 0


@pytest.mark.parametrize("kind", ["coroutine", "function"])  # that of a durable task is kept longer
async def test_the_context_of_an_attempt_dies_with_it(make_observed: Any, mageflow_worker: Any, kind: str):
    observed = make_observed()
    contexts: list[weakref.ref[Any]] = []

    if kind == "function":

        @observed.client.task(name="released", input_validator=Message)
        def released(msg: Message, ctx: Context) -> dict[str, int]:
            contexts.append(weakref.ref(ctx))
            return {"x": msg.x}
    else:

        @observed.client.task(name="released", input_validator=Message)
        async def released(msg: Message, ctx: Any) -> dict[str, int]:
            contexts.append(weakref.ref(ctx))
            return {"x": msg.x}

    mageflow_worker.in_process(observed.client, "released", workflows=[released])
    assert await released.aio_run(Message()) == {"x": 0}  # what is made once is made
    gc.collect()
    gc.disable()
    try:
        for number in (1, 2):
            assert await released.aio_run(Message(x=number)) == {"x": number}
        # The worker itself keeps the last one for a moment.
        await until(lambda: contexts[1]() is None)
    finally:
        gc.enable()
    assert len(contexts) == 3
