"""``/metrics``, ``/healthz`` and ``/debug/locks`` over HTTP, from a daemon thread.

A thread and not the event loop: rendering costs about 14 µs per series, and a large registry would stall every task
of the worker while it is scraped. The process that runs the tasks serves, because that is where the facts are.
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

from mageflow.telemetry.guard import Signal

__all__ = ["Endpoint", "EndpointApp", "bind"]

STALE_AFTER_SECONDS = 5.0

_POLL_SECONDS = 0.1
"""How often the serving thread looks whether it is to stop."""

_JSON = "application/json; charset=utf-8"
_TEXT = "text/plain; charset=utf-8"


class EndpointApp:
    """The WSGI application.

    Args:
        registry: Served under ``/metrics``; OpenMetrics (with exemplars) when the client accepts it.
        seconds_since_tick: How long ago the loop that runs the tasks was last seen alive.
        lock_report: What ``/debug/locks`` shows; called in the serving thread.
        signal: Counts what goes wrong here.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        seconds_since_tick: Callable[[], float],
        lock_report: Callable[[], object],
        signal: Signal,
    ) -> None:
        self._metrics = make_wsgi_app(registry)
        self._seconds_since_tick = seconds_since_tick
        self._lock_report = lock_report
        self._signal = signal

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request; never raises."""
        path = str(environ.get("PATH_INFO", ""))
        try:
            if path == "/metrics":
                return cast("Iterable[bytes]", self._metrics(environ, start_response))
            status, content_type, body = self._answer(path, str(environ.get("REMOTE_ADDR", "")))
        except Exception as error:  # noqa: BLE001 - the scraper is told, the worker goes on
            self._signal.failed(path, error)
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
    """Seconds for one request: a peer that says nothing does not keep its thread."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the signature of the base class
        """Say nothing."""


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        # Not HTTPServer's: it asks the resolver for the host's name, which may take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A peer that hangs up is no news."""


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
        """Where metrics are."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"http://{host}:{self.port}/metrics"

    def start(self, app: EndpointApp) -> None:
        """Begin to serve."""
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
    """Bind the first port that is free, in the order given; None when none is."""
    server_class = _Server6 if ":" in address else _Server
    for port in ports:
        try:
            return Endpoint(server_class((address, port), _Handler))
        except (OSError, OverflowError):
            continue
    return None
