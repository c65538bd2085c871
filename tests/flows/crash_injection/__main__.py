"""Kill workers, simulated or real, and print what became of their flows.

``--crashes 2000`` simulates: about a minute. ``--deaths 2500`` kills processes: a quarter of an hour on two cores.
"""

import argparse
import asyncio
import signal
import tempfile
from pathlib import Path

from tests.flows.crash_injection.cases import SIMULATED, Matrix, Simulated, random_kills, streams
from tests.flows.crash_injection.processes import kill_workers
from tests.flows.crash_injection.report import Found, by_place, by_scenario
from tests.flows.crash_injection.scenarios import SCENARIOS
from tests.flows.crash_injection.simulation import simulate


async def kill_until_signalled(folder: Path, work: Matrix, workers: int) -> Found:
    """Kill real workers; SIGINT and SIGTERM end it early, with a report of what was done."""
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, work.stop)
    return await kill_workers(folder, work, workers)


def main() -> None:
    """Run the cases and print the tables; the exit status is 1 if a flow did not end as it must."""
    parser = argparse.ArgumentParser(prog="python -m tests.flows.crash_injection", description=__doc__)
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--crashes", type=int, help="simulate at least this many crashes")
    how.add_argument("--deaths", type=int, help="kill at least this many processes, and at every first point")
    parser.add_argument("--workers", type=int, default=16, help="processes at the same time")
    parser.add_argument("--stride", type=int, default=1, help="only every n-th point (processes)")
    parser.add_argument("--seed", type=int, default=0, help="seed of random moments (processes)")
    parser.add_argument("--scenario", default="", help="only scenarios whose name starts with this")
    parser.add_argument("--folder", type=Path, help="keep what was recorded in this folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if options.crashes is not None:
            scenarios = [each for each in SIMULATED if each.name.startswith(options.scenario)]
            found = asyncio.run(simulate(folder, Simulated(options.crashes, scenarios)))
        else:
            scenarios = [each for each in SCENARIOS if each.name.startswith(options.scenario)]
            first, second = (streams(options.seed, options.stride, scenarios, is_second=each) for each in (False, True))
            work = Matrix(first, second, random_kills(options.seed), options.deaths)
            found = asyncio.run(kill_until_signalled(folder, work, options.workers))
    print(by_place(found), by_scenario(found), sep="\n\n")
    print(f"\n{found.deaths} deaths, {len(found.cases)} flows, {found.seconds:.0f} s")
    print("\n".join(found.wrong) or "nothing lost, nothing twice")
    raise SystemExit(1 if found.wrong else 0)


if __name__ == "__main__":
    main()
