"""``/metrics``, ``/healthz`` and ``/debug/locks`` over HTTP, served by a daemon thread.

Not by the event loop: rendering takes about 14 µs per series, and a large registry would stall every task of the worker
during a scrape. The process that runs the tasks serves them, because the metrics are in its memory.
"""

import json
import socket
import socketserver
import threading
from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address
from typing import Any, cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app

from mageflow.telemetry.guards import Guard

__all__ = ["Endpoint", "EndpointApp", "bind"]

STALE_AFTER_SECONDS = 5.0

_POLL_SECONDS = 0.1
"""How often the serving thread checks for its stop signal."""

_JSON = "application/json; charset=utf-8"
_TEXT = "text/plain; charset=utf-8"


class EndpointApp:
    """The WSGI application.

    Args:
        registry: Served under ``/metrics``; OpenMetrics (with exemplars) when the client accepts it.
        seconds_since_tick: Seconds since the event loop that runs the tasks last ran.
        lock_report: The body of ``/debug/locks``; called in the serving thread.
        guard: Counts and logs failures of the endpoint.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        seconds_since_tick: Callable[[], float],
        lock_report: Callable[[], object],
        guard: Guard,
    ) -> None:
        self._metrics = make_wsgi_app(registry)
        self._seconds_since_tick = seconds_since_tick
        self._lock_report = lock_report
        self._guard = guard

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request; never raises."""
        path = str(environ.get("PATH_INFO", ""))
        try:
            if path == "/metrics":
                return cast("Iterable[bytes]", self._metrics(environ, start_response))
            status, content_type, body = self._answer(path, str(environ.get("REMOTE_ADDR", "")))
        except Exception as error:  # noqa: BLE001 - the scraper gets a 500, the worker goes on
            self._guard.failed(path, error)
            status, content_type, body = "500 Internal Server Error", _TEXT, b"telemetry failed; see the worker's log\n"
        start_response(status, [("Content-Type", content_type), ("Content-Length", str(len(body)))])
        return [body]

    def _answer(self, path: str, peer: str) -> tuple[str, str, bytes]:
        if path == "/healthz":
            seconds = self._seconds_since_tick()
            is_fresh = seconds <= STALE_AFTER_SECONDS
            body = {"status": "ok" if is_fresh else "stalled", "seconds_since_tick": round(seconds, 3)}
            return "200 OK" if is_fresh else "503 Service Unavailable", _JSON, json.dumps(body).encode()
        if path == "/debug/locks":
            if not _is_loopback(peer):
                return "403 Forbidden", _TEXT, b"only for peers on this host\n"
            return "200 OK", _JSON, json.dumps(self._lock_report(), default=str).encode()
        return "404 Not Found", _TEXT, b"/metrics, /healthz or /debug/locks\n"


def _is_loopback(peer: str) -> bool:
    try:
        address = ip_address(peer.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


class _Handler(WSGIRequestHandler):
    timeout = 10.0
    """Seconds for one request, so that a silent peer does not occupy a thread."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the signature of the base class
        """Log no requests."""


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        # HTTPServer.server_bind would resolve the host's name, which may take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore peers that disconnect."""


class _Server6(_Server):
    address_family = socket.AF_INET6


class Endpoint:
    """A bound endpoint, served by a daemon thread from `start` to `stop`."""

    def __init__(self, server: _Server) -> None:
        self._server = server
        self._thread: threading.Thread | None = None
        self.address = str(server.server_address[0])
        self.port = int(server.server_address[1])

    @property
    def url(self) -> str:
        """The URL of ``/metrics``."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"http://{host}:{self.port}/metrics"

    def start(self, app: EndpointApp) -> None:
        """Start serving in a daemon thread."""
        self._server.set_app(app)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_SECONDS,), name="mageflow-metrics", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop serving and free the port. Blocks for up to `_POLL_SECONDS`."""
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join(timeout=5.0)
            self._thread = None
        self._server.server_close()


def bind(address: str, ports: Sequence[int]) -> Endpoint | None:
    """Bind the first free port, in the given order; None if no port is free."""
    server_class = _Server6 if ":" in address else _Server
    for port in ports:
        try:
            return Endpoint(server_class((address, port), _Handler))
        except (OSError, OverflowError):
            continue
    return None
