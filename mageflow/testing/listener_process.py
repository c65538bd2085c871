"""The listener processes of workers in this process: forked from a server that has imported the SDK once.

The SDK starts the listener of a worker as a new interpreter, which imports the SDK again. That is a second of CPU for
each worker of a test. A fork server imports it once for the whole session.
"""

import multiprocessing
import os
from collections.abc import Generator
from contextlib import contextmanager
from multiprocessing.context import BaseContext, ForkServerContext, ForkServerProcess
from typing import Any

__all__ = ["forked_listeners"]

_PRELOADED = ["hatchet_sdk.worker.action_listener_process", __name__]


class _ListenerProcess(ForkServerProcess):
    """A process that has the environment of the moment at which it is made, as a new interpreter has."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._environment = dict(os.environ)

    def run(self) -> None:
        os.environ.clear()
        os.environ.update(self._environment)  # the fork server's is the one of its own start
        super().run()


class _ListenerContext(ForkServerContext):
    Process = _ListenerProcess  # pyright: ignore[reportAssignmentType] - the stubs declare a method here


@contextmanager
def forked_listeners() -> Generator[None]:
    """Workers that the SDK makes in the block start their listener processes from the fork server.

    The server starts with the first of them and ends with this process. The block replaces
    ``multiprocessing.get_context``, which the SDK asks for the method ``spawn`` when it makes a worker: use it in the
    main thread, for the call that makes the worker alone.
    """
    contexts = multiprocessing.get_context

    def get_context(method: str | None = None) -> BaseContext:
        return _ListenerContext() if method == "spawn" else contexts(method)

    multiprocessing.set_forkserver_preload(_PRELOADED)
    multiprocessing.get_context = get_context  # pyright: ignore[reportAttributeAccessIssue] - a patch
    try:
        yield
    finally:
        multiprocessing.get_context = contexts
