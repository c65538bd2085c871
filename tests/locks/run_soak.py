"""The long soak, run by hand: ``python -m tests.locks.run_soak [operations] [processes] [tasks]``.

By default 200,000 acquire / release operations by 200 tasks in 4 processes on 40 locks, every task taking its locks in
one order. Counts violations of mutual exclusion, of growing tokens, and false positives of the deadlock detector.
"""

import asyncio
import sys
import time

from mageflow.testing.valkey import EmbeddedValkey
from tests.locks.processes import LockProcess


async def main(operations: int, processes: int, tasks: int) -> int:
    """Print a summary; return the number of violations."""
    with EmbeddedValkey() as server:
        started = time.monotonic()
        running = [
            await LockProcess.start(
                "soak", server.url, index, tasks // processes, operations // processes, 40, int(time.time())
            )
            for index in range(processes)
        ]
        lines = [
            line for printed in await asyncio.gather(*(each.remaining(3600) for each in running)) for line in printed
        ]
        took = time.monotonic() - started
        for each in running:
            await each.kill()
        violations = [line for line in lines if "violation" in line]
        done = sum(line.get("done", 0) for line in lines)
        lost = sum(line.get("lost", 0) for line in lines)
        keys = server.keys_without_ttl()
        print(
            f"{done} operations by {tasks} tasks in {processes} processes in {took:.0f} s ({done / took:.0f}/s): "
            f"{len(violations)} violations, {lost} lost leases, {len(keys)} keys without a TTL"
        )
        for line in violations[:20]:
            print(line)
        return len(violations) + len(keys)


if __name__ == "__main__":
    chosen = [int(each) for each in sys.argv[1:]]
    sys.exit(1 if asyncio.run(main(*(chosen + [200_000, 4, 200][len(chosen) :]))) else 0)
