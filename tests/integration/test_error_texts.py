"""The error texts that Hatchet stores for a run, as the SDK and the engine write them."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from hatchet_sdk.exceptions import TaskRunError

from mageflow.hatchet.errors_map import raised_error


class NestedError(Exception):
    """An exception class of a user."""


def written(error: Exception) -> str:
    """The text that the SDK sends for an exception that was raised."""
    try:
        raise error  # noqa: TRY301 - for its traceback
    except Exception as raised:  # noqa: BLE001 - any exception
        return TaskRunError.from_exception(raised, "run").serialize(include_metadata=True)


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ValueError("no good"), "ValueError", "no good"),
        (ValueError(), "ValueError", ""),
        (ValueError("a: b: c"), "ValueError", "a: b: c"),
        (NestedError('line 1\nline 2\n\n{"a": 1}'), "NestedError", 'line 1\nline 2\n\n{"a": 1}'),
        (ExceptionGroup("two", [ValueError("x"), KeyError("y")]), "ExceptionGroup", "two (2 sub-exceptions)"),
        (KeyError("k"), "KeyError", "'k'"),
    ],
)
def test_the_exception_of_a_task_function_is_read_back(error: Exception, kind: str, message: str) -> None:
    """Its class, and its text of any number of lines."""
    assert raised_error(written(error)) == (kind, message)


@pytest.mark.parametrize(
    "text", ["", "Task reached its maximum reassignment count", "a worker said: no\n{not json", "x\n[1]"]
)
def test_words_of_hatchet_are_no_exception(text: str) -> None:
    """No class, and the whole text."""
    assert raised_error(text) == ("", text)


async def test_what_the_engine_stores_is_read(observed: Any, mageflow_worker: Any) -> None:
    """A real run that fails, and one that its execution timeout ends."""
    client = observed.client

    @client.task(name="fails")
    async def fails(msg: dict[str, Any]) -> dict[str, Any]:
        raise ValueError("line 1\nline 2")

    @client.task(name="sleeps", execution_timeout=timedelta(seconds=1))
    async def sleeps(msg: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(30)
        return {}

    mageflow_worker.in_process(client, "errors", workflows=[fails, sleeps])
    found = []
    for task in (fails, sleeps):
        run = await task.aio_run({}, wait_for_result=False)
        async with asyncio.timeout(60):
            while (await client.runs.aio_get_status(run.workflow_run_id)).name != "FAILED":
                await asyncio.sleep(0.05)
        details = await client.runs.aio_get_details(run.workflow_run_id)
        found += [raised_error(each.error or "") for each in details.task_runs.values()]
    assert found == [("ValueError", "line 1\nline 2"), ("TaskTimedOut", "")]
