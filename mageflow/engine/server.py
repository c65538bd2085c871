"""One engine process: ports, handshake file, start and stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from pathlib import Path

from mageflow.engine.core import Engine
from mageflow.engine.rest import bind_rest, start_rest
from mageflow.engine.rpc import bind_grpc, start_grpc
from mageflow.engine.settings import TOKEN_SECRET, Settings
from mageflow.engine.tokens import Handshake, issue_token, new_secret, tenant_of
from mageflow.files import PRIVATE, write_in_one_step

_log = logging.getLogger("mageflow.engine")
_GRACE_SECONDS = 0.5


async def serve(settings: Settings) -> None:
    """Run an engine until SIGTERM, SIGINT or, with ``exit_with_stdin``, the end of standard input."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    secret = os.environ.pop(TOKEN_SECRET, "") or new_secret()
    tenant_id = tenant_of(secret)
    bound = bind_rest(settings.api_port)
    api_url = f"http://127.0.0.1:{bound.getsockname()[1]}"
    grpc_server, interceptor, grpc_port = bind_grpc(settings.grpc_port)
    grpc_address = f"127.0.0.1:{grpc_port}"
    token = issue_token(tenant_id, grpc_address, api_url, secret)
    interceptor.accept(token)
    engine = Engine(settings, tenant_id)
    await start_grpc(grpc_server, engine)
    rest = await start_rest(bound, engine, token)
    _announce(settings, Handshake(token, tenant_id, grpc_address, api_url))
    _log.info("ready: gRPC %s, REST %s", grpc_address, api_url)
    # Everything that exists now stays, so the garbage collector can skip it.
    gc.freeze()
    if settings.exit_with_stdin:
        _watch_stdin(loop, stop)
    await stop.wait()
    await grpc_server.stop(_GRACE_SECONDS)
    await rest.cleanup()


def _announce(settings: Settings, handshake: Handshake) -> None:
    if settings.handshake_file is None:
        sys.stdout.write(handshake.to_json() + "\n")
        sys.stdout.flush()
        return
    # The token gives access to the engine, so only the owner may read the file.
    write_in_one_step(Path(settings.handshake_file), handshake.to_json(), mode=PRIVATE)


def _watch_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Set ``stop`` when standard input ends: the parent process has ended. Terminals and files are ignored."""
    descriptor = sys.stdin.fileno() if sys.stdin is not None else -1

    def readable() -> None:
        with contextlib.suppress(BlockingIOError):
            if not os.read(descriptor, 4096):
                loop.remove_reader(descriptor)
                stop.set()

    with contextlib.suppress(PermissionError, ValueError, OSError):
        # epoll refuses regular files and /dev/null. They never close, so there is nothing to watch.
        loop.add_reader(descriptor, readable)
