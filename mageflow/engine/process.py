"""Running an engine in this process: what ``python -m mageflow.engine`` and ``mageflow engine`` do."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from mageflow.engine.settings import parse_settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run an engine with command-line arguments (default: this process's) until it is told to stop."""
    settings = parse_settings(sys.argv[1:] if arguments is None else arguments)
    # Heavy imports (gRPC, aiohttp) only once the arguments are known to be good: --help stays fast.
    import asyncio
    import logging

    from mageflow.engine.server import serve

    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        asyncio.run(serve(settings))
    except OSError as error:
        sys.stderr.write(f"mageflow engine: {error}\n")
        return 1
    return 0
