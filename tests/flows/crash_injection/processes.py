"""Real deaths: worker processes on a local engine and a real Valkey, killed at a point or at a random moment.

Four kinds of death: ``os._exit`` before and after every call to Redis and Hatchet, and inside task functions;
``os._exit`` at every await point, when mageflow suspends there and when it is resumed; both again in the worker that
comes after a death, so that the repair is interrupted too; and SIGKILL at random moments, up to three times in one
flow.

The engine notices a death when the heartbeats stop (after 5 s), and many flows run at the same time. A task function
has succeeded when its settlement is in Redis; one that ran and died before that runs again, as it must.
"""

import asyncio
import json
import time
from pathlib import Path

from mageflow.engine import LocalEngine
from mageflow.testing.valkey import EmbeddedValkey
from tests.flows.crash_injection.cases import Work
from tests.flows.crash_injection.fork_server import ForkServer
from tests.flows.crash_injection.report import Found
from tests.flows.crash_injection.verify import DEATHS_FILE, JOURNAL_FILE, read_journal
from tests.flows.crash_injection.worker_pool import PooledWorker

WORKER_LOST_AFTER = 5.0
"""Seconds without a heartbeat after which the engine reassigns the runs of a worker; the SDK sends one every four."""


async def kill_workers(folder: Path, work: Work, workers: int) -> Found:
    """Run every case the work hands out, with this many workers at a time, and verify them all."""
    found = Found()
    started = time.monotonic()
    options = {"dir": str(folder), "appendfsync": "no", "auto-aof-rewrite-percentage": "0"}
    with (
        EmbeddedValkey(append_only=True, options=options) as valkey,
        LocalEngine(worker_lost_after=WORKER_LOST_AFTER) as engine,
    ):
        namespaces = [f"worker{number}" for number in range(workers)]
        async with ForkServer(valkey.url, folder) as server:
            pool = [PooledWorker(each, engine, server, valkey.url) for each in namespaces]
            await asyncio.gather(*(each.run(work, found.cases) for each in pool))
        found.leaked = valkey.keys_without_ttl()
    deaths = folder / DEATHS_FILE
    found.notes = [json.loads(line) for line in deaths.read_text().splitlines()] if deaths.exists() else []
    found.verify(folder, read_journal(folder / JOURNAL_FILE))
    found.seconds = time.monotonic() - started
    return found
