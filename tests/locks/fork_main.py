"""A program that forks while it uses locks: ``python -m tests.locks.fork_main CASE CLIENT URL``.

It prints one line of JSON: what the child met, and what the parent has when the child is gone.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import redis
import redis.asyncio

from mageflow.errors import LockTimeoutError
from mageflow.interceptors import current_attempt
from mageflow.locks import Lease, LockService
from mageflow.store import Keys, LockStore, RedisPort
from tests.locks.runs import attempt

CLIENTS: dict[str, Callable[[str], Any]] = {
    "url": lambda url: url,
    "asyncio": redis.asyncio.Redis.from_url,
    "synchronous": redis.Redis.from_url,
    "single": lambda url: redis.Redis.from_url(url, single_connection_client=True),
}
LEASE_SECONDS = 3.0


class Program:
    """The locks of a process, made before it forks."""

    def __init__(self, case: str, client: str, url: str) -> None:
        keys = Keys("mageflow", f"tests-{case}-{client}")  # other cases run beside this one
        self.locks = LockService(LockStore(RedisPort(CLIENTS[client](url)), keys), lease_seconds=LEASE_SECONDS)

    def acquire(self, key: str, seconds: float = 20.0) -> Any:
        return self.locks.resource("orders").acquire(key, timeout=timedelta(seconds=seconds))

    def locks_of_child(self) -> dict[str, Any]:
        """In the child: free locks in a thread and in coroutines, and one that the parent holds."""
        with self.acquire("mine") as lease:
            lease.check()
            time.sleep(LEASE_SECONDS * 1.5)  # it has to be renewed here
            lease.check()
            nested = self.nested()
        async_lease = asyncio.run(self.aio_acquire("mine"))
        try:
            with self.acquire("parents", 0.5):
                met = "locked"
        except LockTimeoutError:
            met = "timeout"
        return {"child": nested and async_lease.token > lease.token, "parents": met}

    def nested(self) -> bool:
        with self.acquire("mine", 0.5):
            return True

    async def aio_acquire(self, key: str) -> Lease:
        async with self.acquire(key) as lease:
            return lease

    def in_child(self, work: Callable[[], dict[str, Any]], *, ends_like_a_program: bool = False) -> dict[str, Any]:
        """Fork, do the work in the child, and wait for its end and its answer."""
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.write(writer, json.dumps(work()).encode())
                status = 0
            finally:
                if not ends_like_a_program:
                    os._exit(status)
            sys.exit(status)
        os.close(writer)
        with os.fdopen(reader) as answer:
            text = answer.read()
        _, status = os.waitpid(child, 0)
        return {**json.loads(text or "{}"), "status": status}

    def state(self, lease: Lease) -> dict[str, Any]:
        """In the parent, with the child gone: its lease is renewed, and other locks can be had."""
        time.sleep(LEASE_SECONDS * 1.5)
        lease.check()
        with self.acquire("mine"):
            return {"parent": True}


def preload(program: Program) -> dict[str, Any]:
    """The locks are made before the fork and used after it, as servers do that load a program first."""
    met = program.in_child(program.locks_of_child)
    with program.acquire("parents") as lease:
        return met | program.state(lease)


def thread(program: Program) -> dict[str, Any]:
    """Without an event loop: the parent's own thread serves its locks."""
    with program.acquire("parents") as lease:
        return program.in_child(program.locks_of_child) | program.state(lease)


def program_end(program: Program) -> dict[str, Any]:
    """The child ends as programs do: the interpreter destroys what it has, the parent's connections too."""
    with program.acquire("parents") as lease:
        return program.in_child(program.locks_of_child, ends_like_a_program=True) | program.state(lease)


def leaving(program: Program) -> dict[str, Any]:
    """The child leaves the block of the parent."""

    def work() -> dict[str, Any]:
        block.__exit__(None, None, None)
        return program.locks_of_child()

    block = program.acquire("parents")
    with block as lease:
        return program.in_child(work) | program.state(lease)


def synchronous_body(program: Program) -> dict[str, Any]:
    """In a task's thread, with the attempt of the task: the loop of the worker serves the locks of the parent."""

    async def worker() -> dict[str, Any]:
        await program.locks.start()
        current_attempt.set(attempt("r1"))
        async with program.acquire("parents") as lease:
            return await asyncio.to_thread(lambda: program.in_child(program.locks_of_child) | program.state(lease))

    return asyncio.run(worker())


def main() -> None:
    case, client, url = sys.argv[1:]
    cases = (preload, thread, program_end, leaving, synchronous_body)
    print(json.dumps({each.__name__: each for each in cases}[case](Program(case, client, url))), flush=True)


if __name__ == "__main__":
    main()
