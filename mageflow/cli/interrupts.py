"""Ctrl-C: a word of what is being waited for comes at once, at any moment of the program."""

import asyncio
import os
import signal
from collections.abc import Coroutine, Generator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any, Final, TypeVar

__all__ = ["StopRequest", "answered", "run_answered", "say_at_once", "stop_on_signals"]

T = TypeVar("T")

_STDERR: Final = 2


def say_at_once(text: str) -> None:
    """Write one line to standard error, from a signal handler too: it may have interrupted another write."""
    with suppress(OSError):
        os.write(_STDERR, f"{text}\n".encode())


@contextmanager
def answered(text: str) -> Generator[None]:
    """Say the text when SIGINT comes in this block, once; then what would have happened happens."""
    before = signal.getsignal(signal.SIGINT)
    if not callable(before):  # ignored, as in a program that a shell has started in the background
        yield
        return
    act, is_said = before, False

    def answer(number: int, frame: FrameType | None) -> None:
        nonlocal is_said
        if not is_said:
            is_said = True
            say_at_once(text)
        act(number, frame)

    signal.signal(signal.SIGINT, answer)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def run_answered(work: Coroutine[Any, Any, T], text: str) -> T:
    """Like `asyncio.run`, which cancels the work on SIGINT, and the text is said then."""

    async def run() -> T:
        with answered(text):
            return await work

    before = signal.getsignal(signal.SIGINT)
    if not callable(before):
        return asyncio.run(run())
    signal.signal(signal.SIGINT, signal.default_int_handler)  # asyncio replaces no other handler
    try:
        return asyncio.run(run())
    finally:
        signal.signal(signal.SIGINT, before)


class StopRequest:
    """Whether a signal has asked for the end. Its handler may run at any moment, also in the middle of `wait`.

    A `threading.Event` is no good for that: `wait` holds its lock for moments, in the thread that runs the handler, and
    ``set`` would wait for that lock for ever. The queue takes no such lock.
    """

    def __init__(self) -> None:
        self._queue: SimpleQueue[None] = SimpleQueue()
        self._is_set = False

    def set(self) -> None:
        """Ask for the end."""
        self._is_set = True
        self._queue.put(None)

    def is_set(self) -> bool:
        """Whether the end was asked for."""
        return self._is_set

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the end is asked for, for so many seconds at most, and return whether it was. For one thread."""
        if not self._is_set:
            with suppress(Empty):
                self._queue.get(timeout=timeout)
        return self._is_set


def stop_on_signals(text: str) -> StopRequest:
    """From now on SIGINT and SIGTERM say the text, once, and set what is returned."""
    request, is_said = StopRequest(), False

    def handle(_number: int, _frame: FrameType | None) -> None:
        nonlocal is_said
        if not is_said:
            is_said = True
            say_at_once(text)
        request.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)
    return request
