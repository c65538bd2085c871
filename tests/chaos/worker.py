"""A worker with the tasks of the crash tests, which also notes each body that has succeeded."""

import json
import os
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import redis.asyncio.cluster
import redis.asyncio.sentinel
from hatchet_sdk import ClientConfig, Hatchet

from mageflow import Mageflow, Settings
from mageflow.interceptors import Attempt, Interceptor
from tests.flows.crash_injection.fork_server import SETTINGS
from tests.flows.crash_injection.kill_points import KillSwitch, Note
from tests.flows.crash_injection.tasks import Journal, declare
from tests.flows.crash_injection.verify import JOURNAL_FILE

SUCCESSES_FILE = "successes.jsonl"
SENTINEL = "sentinel://"
CLUSTER = "cluster://"
SLOTS = 20


def redis_client(address: str) -> Any:
    """What a program gives to its `Mageflow`: a URL, or the client of a Cluster (``cluster://PORT``) or of a Sentinel.

    The address of a master behind a Sentinel is ``sentinel://PORT/NAME``.
    """
    if address.startswith(CLUSTER):
        return redis.asyncio.cluster.RedisCluster("127.0.0.1", int(address.removeprefix(CLUSTER)))
    if not address.startswith(SENTINEL):
        return address
    port, _, name = address.removeprefix(SENTINEL).partition("/")
    sentinel = redis.asyncio.sentinel.Sentinel([("127.0.0.1", int(port))], socket_timeout=4.0)
    return sentinel.master_for(name)


class Successes(Interceptor):
    """Notes the bodies that have returned; a record of it in Redis comes later."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    @contextmanager
    def execute(self, call: Attempt) -> Generator[None]:
        yield
        note = {"ended_at": time.time(), "dedupe": call.metadata.get("mageflow_dedupe", "")}
        os.write(self._file, json.dumps(note).encode() + b"\n")


def _never(note: Note) -> NoReturn:
    raise AssertionError(f"an unarmed switch was reached: {note}")


def main(address: str, folder: Path, body_seconds: float, settings: Settings = SETTINGS) -> None:
    """Run a worker until it is stopped."""
    client = Mageflow(
        Hatchet(config=ClientConfig()),
        redis_client(address),
        settings=settings,
        interceptors=[Successes(folder / SUCCESSES_FILE)],
    )
    tasks = declare(client, KillSwitch(_never), Journal(folder / JOURNAL_FILE, address), body_seconds)
    client.worker(f"chaos-{os.getpid()}", slots=SLOTS, workflows=tasks).start()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]))
