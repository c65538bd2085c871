"""The shutdown of one worker, where another one of the same client runs in a thread of the process."""

import asyncio
import threading
import time

from mageflow.invocation.shutdown import Shutdown


def test_a_worker_stops_while_runs_of_another_one_begin_to_wait() -> None:
    """Each has its own event loop. What waits on the other loop is neither a hindrance nor ended."""
    shutdown = Shutdown()
    is_over = threading.Event()
    waited = 0

    async def waits() -> None:
        nonlocal waited
        while not is_over.is_set():
            async with shutdown.giving_back("a lock"):
                await asyncio.sleep(0)
            waited += 1

    async def other_worker() -> None:
        await asyncio.gather(*(waits() for _ in range(50)))

    thread = threading.Thread(target=lambda: asyncio.run(other_worker()))
    thread.start()

    async def stops_again_and_again() -> None:
        until = time.monotonic() + 3
        while time.monotonic() < until:
            shutdown.begin()
            shutdown.end()

    try:
        asyncio.run(stops_again_and_again())
    finally:
        is_over.set()
        thread.join()
    assert waited
