"""The private names of the SDK's worker.

``tests/contract/test_sdk_private_names.py`` fails when a new SDK version moves one of the names. Those of attempts,
declarations and clients are in ``compat.py``; everything else in mageflow uses the public API of the SDK.

Written against hatchet-sdk 1.43.1.
"""

from collections.abc import Callable
from typing import Any, cast

from hatchet_sdk.contracts.dispatcher_pb2 import STEP_EVENT_TYPE_FAILED
from hatchet_sdk.runnables.task import Task
from hatchet_sdk.worker.worker import LifespanFn, Worker

from mageflow.error_text import clipped
from mageflow.hatchet.features import QueuedBatchActionEvent

# pyright: reportPrivateUsage=false

__all__ = ["before_exit", "prepare_listener", "send_storable_errors", "set_lifespan", "slots_of", "tasks_of_worker"]


def slots_of(worker: Worker) -> dict[str, int]:
    """A worker's slots by pool."""
    return dict(worker._slot_config)


def tasks_of_worker(worker: Worker) -> dict[str, Task[Any, Any]]:
    """The tasks registered on a worker so far, by the ids of their actions."""
    return dict(worker._action_registry)


def send_storable_errors(worker: Worker) -> None:
    """Make the error texts that a worker reports storable: a lone surrogate or a NUL becomes an escape.

    The SDK cannot send a text with a surrogate, and Hatchet refuses one with a NUL: the run would go on until its
    timeout. The texts pass through the queue to the listener's process, whose copy of the queue is not changed.
    """
    queue = cast("Any", worker._event_queue)
    put: Callable[..., None] = queue.put

    def put_storable(event: Any, *args: Any, **kwargs: Any) -> None:
        if getattr(event, "type", None) == STEP_EVENT_TYPE_FAILED:
            reports: list[Any] = event.items if isinstance(event, QueuedBatchActionEvent) else [event]
            for each in reports:
                if each.payload:
                    each.payload = clipped(each.payload, len(each.payload))
        put(event, *args, **kwargs)

    queue.put = put_storable


def before_exit(worker: Worker, callback: Callable[[], None]) -> None:
    """Call ``callback`` on the worker's loop when it begins to stop, before it waits for its tasks."""
    exit_gracefully = worker.exit_gracefully

    async def exit_after_callback() -> None:
        callback()
        await exit_gracefully()

    worker.exit_gracefully = exit_after_callback


def set_lifespan(worker: Worker, lifespan: LifespanFn) -> LifespanFn | None:
    """Replace the lifespan of a worker that has not started. Returns the one it had."""
    previous = worker._lifespan
    worker._lifespan = lifespan
    return previous


def prepare_listener(worker: Worker, preparation: Callable[[], Callable[[], None] | None]) -> None:
    """Run something in the listener process of a worker before the SDK's code.

    The process is spawned: it imports the program, and does not run its main block.

    Args:
        worker: A worker that has not started.
        preparation: Called when the process starts; returns what to run in it (can be pickled), or None.
    """
    worker._ctx = cast("Any", _PreparingContext(worker._ctx, preparation))


class _PreparingContext:
    """The multiprocessing context of a worker. It starts processes that prepare themselves first."""

    def __init__(self, inner: Any, preparation: Callable[[], Callable[[], None] | None]) -> None:
        self._inner = inner
        self._preparation = preparation

    def Process(self, *, target: Callable[..., None], args: tuple[Any, ...], **options: Any) -> Any:  # noqa: N802 - as in multiprocessing
        prepare = self._preparation()
        if prepare is not None:
            target, args = _run_prepared, (prepare, target, *args)
        return self._inner.Process(target=target, args=args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def _run_prepared(prepare: Callable[[], None], target: Callable[..., None], *args: Any) -> None:
    prepare()
    target(*args)
