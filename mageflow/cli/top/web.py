"""The live view in a browser of this machine: textual-serve, closed to every other page and host.

Each page that is opened runs one live view in a process of its own.
"""

import asyncio
import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from textual_serve.server import Server

from mageflow.errors import ConfigurationError

__all__ = ["HOST", "serve"]

HOST = "127.0.0.1"
_END_SECONDS = 5.0
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def serve(command: str, port: int, started: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        command: The shell command of one live view.
        port: The port on `HOST`.
        started: Called with the address when it is served.

    Raises:
        ConfigurationError: The port is taken.
    """
    try:
        # First: the server would say that it serves before it has the port.
        socket.create_server((HOST, port)).close()
        _Server(command, port, started).serve()
    except OSError as error:
        raise ConfigurationError(
            f"port {port} on {HOST} cannot be used ({os.strerror(error.errno or 0)}): choose another one with --port"
        ) from error


class _Server(Server):
    def __init__(self, command: str, port: int, started: Callable[[str], None]) -> None:
        super().__init__(command, host=HOST, port=port, title="mageflow top")
        self._started = started
        self._pages: set[asyncio.Task[Any]] = set()

    def initialize_logging(self) -> None:
        """Log nothing: the default logs the command and every page."""

    async def on_startup(self, app: web.Application) -> None:
        """Print nothing: the port is not bound yet."""

    async def on_shutdown(self, app: web.Application) -> None:
        """End the views of open pages, and wait for their processes: the loop that reaps them ends next."""
        for each in self._pages:
            each.cancel()
        await asyncio.gather(*self._pages, return_exceptions=True)
        ends = time.monotonic() + _END_SECONDS
        # The threads in which asyncio waits for its child processes; they have no event.
        while any(map(_waits_for_child, threading.enumerate())) and time.monotonic() < ends:  # noqa: ASYNC110 - threads have no event for it
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.05)

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        """Run a view for one page."""
        page = asyncio.current_task()
        if page is None:
            return await super().handle_websocket(request)
        self._pages.add(page)
        try:
            return await super().handle_websocket(request)
        finally:
            self._pages.discard(page)

    async def _make_app(self) -> web.Application:
        app = await super()._make_app()
        app.middlewares.append(_guard(self.host, self.port))
        self._started(self.public_url)
        return app


def _waits_for_child(thread: threading.Thread) -> bool:
    return thread.name.startswith("waitpid-")


def _guard(host: str, port: int) -> Any:
    """Answers pages of this address alone.

    A page of another origin could otherwise open the socket, and one whose own name resolves to this address could read
    it. The policy also keeps the page from loading anything from elsewhere.
    """
    own = f"{host}:{port}"
    policy = (
        f"default-src 'self'; connect-src 'self' ws://{own}; script-src 'self' 'unsafe-inline'; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; frame-ancestors 'none'"
    )

    @web.middleware
    async def guard(request: web.Request, handler: _Handler) -> web.StreamResponse:
        if request.host == f"localhost:{port}":
            raise web.HTTPFound(f"http://{own}{request.path_qs}")
        if request.host != own or request.headers.get("Origin", f"http://{own}") != f"http://{own}":
            return web.Response(status=403, text=f"only for pages of http://{own}\n")
        response = await handler(request)
        if not response.prepared:
            response.headers["Content-Security-Policy"] = policy
        return response

    return guard
