"""A program that forks, beside a worker of its own or without one: ``fork_program.py CASE``.

The child calls Hatchet in every way, and the program prints one line of JSON: what the child met, and whether the
parent still works.
"""

import asyncio
import faulthandler
import gc
import json
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

from hatchet_sdk import Hatchet
from pydantic import BaseModel

from mageflow import Mageflow, Settings

CHILD_SECONDS = 150  # it takes 20 on a machine that does nothing else
METRICS_PORT = int(os.environ.get("METRICS_PORT", "0"))

client = Mageflow(Hatchet(), settings=Settings(metrics_port=METRICS_PORT))


class Message(BaseModel):
    x: int = 0


@client.task(name="forked-plain")
async def plain(msg: Message) -> dict[str, Any]:
    return {"x": msg.x}


@client.task(name="forked-parent", execution_timeout=timedelta(seconds=180))
def parent(msg: Message) -> dict[str, Any]:
    """Forks in the thread of a synchronous task."""
    answer = in_child({**ways(None), "port": has_no_port})
    with urllib.request.urlopen(f"http://127.0.0.1:{METRICS_PORT}/metrics", timeout=5) as response:
        return {**answer, "served": response.status}


def has_no_port() -> None:
    """In the child: it would keep the port after the parent has ended."""
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError), socket.socket(fileno=os.dup(int(descriptor.name))) as each:
            if each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) and each.getsockname()[1] == METRICS_PORT:
                raise AssertionError("the child has the port too")


def met(call: Callable[[], Any]) -> str:
    """How a call ends. One that hangs fails the test by the time of the whole child."""
    started_at = time.monotonic()
    try:
        call()
    except Exception as error:  # noqa: BLE001 - the test compares the kind
        outcome = type(error).__name__
    else:
        outcome = "ok"
    return outcome if time.monotonic() - started_at < 20 else f"{outcome}, late"


async def wait_for_chain() -> None:
    chain = await client.chain([await client.sign(plain), await client.sign(plain)])
    await chain.aio_run(Message(x=1))


def search_garbage() -> None:
    """In the child: objects of gRPC that the parent left must not be freed here, where no thread of gRPC runs.

    New threads use the memory of those threads first.
    """
    threads = [threading.Thread(target=sum, args=([0] * 1000,)) for _ in range(32)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    gc.collect()


def ways(reference: Any) -> dict[str, Callable[[], Any]]:
    """Calls over gRPC, a signature and a chain, which need Redis, and a client that is made in the child."""

    def made_in_child() -> None:
        other = Mageflow(Hatchet())
        other.stubs.task(name="forked-plain", input_validator=Message).run(Message(), wait_for_result=False)

    async def signed() -> None:
        await client.sign(plain, x=2)

    found: dict[str, Callable[[], Any]] = {
        "run": lambda: plain.run(Message(x=1)),
        "no_wait": lambda: plain.run(Message(x=1), wait_for_result=False),
        "aio_run": lambda: asyncio.run(plain.aio_run(Message(x=1))),
        "many": lambda: plain.run_many([plain.create_bulk_run_item(Message(x=1))]),
        "event": lambda: client.event.push("forked", {"x": 1}),
        "aio_event": lambda: asyncio.run(client.event.aio_push("forked", {"x": 1})),
        "made_in_child": made_in_child,
        "sign": lambda: asyncio.run(signed()),
        "chain": lambda: asyncio.run(wait_for_chain()),
        "garbage": search_garbage,
    }
    if reference is not None:
        found["result"] = reference.result
        found["aio_result"] = lambda: asyncio.run(reference.aio_result())
    return found


def in_child(calls: dict[str, Callable[[], Any]]) -> dict[str, Any]:
    """What the child meets. If it hangs, its threads are shown on the standard error."""
    context = multiprocessing.get_context("fork")
    reader, writer = context.Pipe(duplex=False)

    def meet() -> None:
        faulthandler.dump_traceback_later(CHILD_SECONDS - 10)
        writer.send({name: met(call) for name, call in calls.items()})

    child = context.Process(target=meet)
    child.start()
    writer.close()  # a child that dies is the end of the pipe
    try:
        answer = reader.recv() if reader.poll(CHILD_SECONDS) else {"child": "hangs"}
    except EOFError:
        child.join()
        answer = {"child": f"ended with {child.exitcode}"}
    child.kill()
    child.join()
    return answer


def lock_and_send() -> None:
    with client.resource("forked-server").acquire(key="k"):
        plain.run(Message(x=1), wait_for_result=False)


def serve(used_before: bool) -> None:
    """A server that loads the program before it forks, as gunicorn with ``preload_app``. SIGTERM ends it."""
    if used_before:
        lock_and_send()
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    children = [os.fork() or serve_child() for _ in range(2)]
    try:
        signal.pause()
    finally:
        for child in children:
            os.kill(child, signal.SIGTERM)
        ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print("children ended", *ends, flush=True)


def serve_child() -> NoReturn:
    for _ in range(3):
        lock_and_send()
    print("served", flush=True)
    while True:
        signal.pause()


def main() -> None:
    case = sys.argv[1]
    if case == "worker":
        client.worker("forks", workflows=[plain, parent]).start()
        return
    if case.startswith("server"):
        serve(used_before=case == "server-used")
        return
    reference = None if case == "preload" else plain.run(Message(x=1), wait_for_result=False)
    if case == "asynchronous":
        asyncio.run(plain.aio_run(Message(x=1)))
    answer = in_child(ways(reference))
    plain.run(Message(x=1))
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
