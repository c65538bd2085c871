"""Runs an engine in this process: ``python -m mageflow.engine`` and the console script ``mageflow-engine``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from mageflow.engine.settings import parse_settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run an engine until SIGTERM, SIGINT or the end of standard input.

    Args:
        arguments: command line without the program; by default the one of this process.

    Returns:
        The exit code: 0, or 1 if a port cannot be used.

    Raises:
        SystemExit: an argument is malformed, or ``--help`` is given.
    """
    settings = parse_settings(sys.argv[1:] if arguments is None else arguments)
    # gRPC and aiohttp are slow to import. They follow the arguments, so that --help is fast.
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
