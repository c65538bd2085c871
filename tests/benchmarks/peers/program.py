"""One process of the comparison: the worker or the sender of a system, with everything on or bare.

    python -m tests.benchmarks.peers.program docket worker on redis://...

A sender reads the size of each batch from a line of its input.
"""

import asyncio
import importlib
import sys
from typing import Any


async def feed(peer: Any, is_on: bool, url: str) -> None:
    """Send a batch for each line of the input."""
    async with peer.sender(is_on, url) as send:
        while line := await asyncio.to_thread(sys.stdin.readline):
            await send(int(line))


def main() -> None:
    """Be what the arguments say."""
    name, role, side, url = sys.argv[1:]
    peer = importlib.import_module(f"tests.benchmarks.peers.{name}_peer")
    if role == "worker":
        peer.serve(side == "on", url)
    else:
        asyncio.run(feed(peer, side == "on", url))


if __name__ == "__main__":
    main()
