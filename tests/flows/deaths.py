"""Workers that really die, at every call and every await point, and flows that end all the same.

``python -m tests.flows.deaths --deaths 2500`` runs the whole matrix and prints it as a table (a quarter of an hour on
two cores). Workers are forked from a process that has imported everything, so a death costs a fraction of a second; a
death is noticed when the heartbeats stop (5 s), and many flows die at the same time, each in a lane of its own. A lane
is a namespace with one worker at a time and one flow at a time: its worker dies as planned, the next one goes on with
what it left, and is the one to die in the next flow.

Four kinds of death: ``os._exit`` before and after every call to Redis and to Hatchet, and inside of bodies;
``os._exit`` at every await point, when mageflow suspends there and when it is resumed; both again in the worker that
comes after a death, so that whoever repairs dies as well; and SIGKILL at random moments, up to three times in one flow.

A body has succeeded when its settlement is in Redis. One that ran and died before that runs again, as it must.
"""

import argparse
import asyncio
import json
import signal
import tempfile
import time
from pathlib import Path

from mageflow.engine import LocalEngine
from mageflow.testing.valkey import EmbeddedValkey
from tests.flows.mortality.cases import Matrix, Work, random_kills, streams
from tests.flows.mortality.fork_server import Nursery
from tests.flows.mortality.report import Found, by_scenario, table
from tests.flows.mortality.scenarios import SCENARIOS
from tests.flows.mortality.verify import Ledger, judge, read_journal
from tests.flows.mortality.worker_pool import PooledWorker

WORKER_LOST_AFTER = 5.0
"""Seconds without a heartbeat until the engine gives a worker's runs to another; the SDK's heart beats every four."""


async def die(folder: Path, work: Work, lanes: int) -> Found:
    """Run every case the work hands out."""
    found = Found()
    started = time.monotonic()
    options = {"dir": str(folder), "appendfsync": "no", "auto-aof-rewrite-percentage": "0"}
    with (
        EmbeddedValkey(append_only=True, options=options) as valkey,
        LocalEngine(worker_lost_after=WORKER_LOST_AFTER) as engine,
    ):
        names = [f"lane{number}" for number in range(lanes)]
        async with Nursery(valkey.url, folder) as nursery:
            crew = [PooledWorker(name, engine, nursery, valkey.url) for name in names]
            await asyncio.gather(*(lane.run(work, found.cases) for lane in crew))
        found.leaked = valkey.keys_without_ttl()
    deaths = folder / "deaths.jsonl"
    found.notes = [json.loads(line) for line in deaths.read_text().splitlines()] if deaths.exists() else []
    ledger, journal = Ledger.read(folder), read_journal(folder / "journal.jsonl")
    found.verdicts = {case.name: judge(case.name, case.scenario, ledger, journal) for case in found.cases}
    found.seconds = time.monotonic() - started
    return found


async def die_until_told(folder: Path, work: Matrix, lanes: int) -> Found:
    """As `die`; SIGINT and SIGTERM end it early, with a report of what was done."""
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, work.stop)
    return await die(folder, work, lanes)


def main() -> None:
    """Print what became of the flows."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--deaths", type=int, default=2500, help="at least so many, and every first point")
    parser.add_argument("--lanes", type=int, default=16, help="workers that live at the same time")
    parser.add_argument("--stride", type=int, default=1, help="only every n-th point")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenario", default="", help="only scenarios whose name starts so")
    parser.add_argument("--folder", type=Path, help="keep what was recorded there")
    options = parser.parse_args()
    wanted = [each for each in SCENARIOS if each.name.startswith(options.scenario)]
    first, second = (streams(options.seed, options.stride, wanted, is_second=each) for each in (False, True))
    work = Matrix(first, second, random_kills(options.seed), options.deaths)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        found = asyncio.run(die_until_told(folder, work, options.lanes))
    print(table(found))
    print()
    print(by_scenario(found))
    print(f"\n{found.deaths} deaths, {len(found.cases)} flows, {found.seconds:.0f} s")
    print("\n".join(found.wrong) or "nothing lost, nothing twice")
    raise SystemExit(1 if found.wrong else 0)


if __name__ == "__main__":
    main()
