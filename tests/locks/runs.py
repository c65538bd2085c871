"""Runs that use locks, and conditions to wait for."""

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from mageflow.interceptors import Attempt, TaskInfo, current_attempt
from mageflow.locks import LockService, LocksReport

T = TypeVar("T")


def attempt(
    run: str, *, task: str = "", timeout: float = 60.0, retries: int = 0, number: int = 1, **facts: Any
) -> Attempt:
    """An attempt as the task runner makes it."""
    info = TaskInfo(name=task or f"task-{run}", workflow_name="", execution_timeout_seconds=timeout, retries=retries)
    metadata = facts.pop("metadata", {})
    return Attempt(
        task=info,
        workflow_run_id=run,
        task_run_id=f"step-{run}",
        worker_id="worker-1",
        attempt_number=number,
        max_attempts=retries + 1,
        metadata=metadata,
        is_cancelled=lambda: False,
        **facts,
    )


def start(work: Coroutine[Any, Any, T], within: Attempt | None = None) -> "asyncio.Task[T]":
    """Start a run in its own context, as the SDK starts each task."""
    context = contextvars.Context()
    if within is not None:
        context.run(current_attempt.set, within)
    return asyncio.get_running_loop().create_task(work, context=context)


async def until(condition: Callable[[], Any] | Callable[[], Awaitable[Any]], within: float = 60.0) -> Any:
    """Wait until the condition is true; return its value. The limit is for a busy machine."""
    deadline = time.monotonic() + within
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {within} s"
        await asyncio.sleep(0.005)


async def waiting(locks: LockService, count: int) -> LocksReport:
    """Wait until this many requests are queued in Redis."""

    async def enough() -> LocksReport | None:
        report = await locks.snapshot()
        return report if len(report.waiters) == count else None

    return await until(enough)


async def is_free(locks: LockService) -> bool:
    """Whether no lock is held and no request waits."""
    report = await locks.snapshot()
    return not report.holders and not report.waiters


class Gate:
    """Stops a run until the test opens it."""

    def __init__(self) -> None:
        self._reached = asyncio.Event()
        self._open = asyncio.Event()

    async def pass_through(self) -> None:
        """In the run: arrive and wait."""
        self._reached.set()
        await self._open.wait()

    async def reached(self) -> None:
        """In the test: wait until the run has arrived."""
        async with asyncio.timeout(60):
            await self._reached.wait()

    def open(self) -> None:
        """In the test: let the run continue."""
        self._open.set()
