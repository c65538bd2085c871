"""``/metrics``, ``/healthz``, ``/debug/locks`` and ``/debug/runs`` over HTTP, served by daemon threads.

Not by the event loop: a large registry takes a tenth of a second to render, which would stall every task of the worker.
The process that runs the tasks serves them, because the metrics are in its memory. For the same reason connections,
threads and time are limited: peers of this port must not take file descriptors or time from tasks.
"""

import json
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import Any, cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import CollectorRegistry

from mageflow.telemetry.guards import Guard
from mageflow.telemetry.rendering import render

__all__ = ["Endpoint", "EndpointApp", "bind"]

STALE_AFTER_SECONDS = 5.0
MAX_CONNECTIONS = 16
"""Each has a thread. A further peer takes the place of the one that has not sent its request for longest."""
REQUEST_SECONDS = 10.0
"""From the connection to the last byte of the answer. Then the connection is closed."""

_POLL_SECONDS = 0.1
"""How often the serving thread checks for its stop signal, and for connections that are too old."""
_FULL_PAUSE_SECONDS = 0.01
"""Between two connections while every place is taken: a flood of peers must not take the processor from tasks."""
_PLACE_SECONDS = 1.0
"""How long a peer waits for a place. Peers behind it wait too."""

_THREAD = "mageflow-metrics"
_IS_OPEN = "mageflow.is_open"
_JSON = "application/json; charset=utf-8"
_TEXT = "text/plain; charset=utf-8"


class EndpointApp:
    """The WSGI application.

    Args:
        registry: Served under ``/metrics``; OpenMetrics (with exemplars) when the client accepts it.
        seconds_since_tick: Seconds since the event loop that runs the tasks last ran; None for no ``/healthz``.
        lock_report: The body of ``/debug/locks``, called in the serving thread; None for no such path.
        run_report: The same for ``/debug/runs``.
        guard: Counts and logs failures of the endpoint.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        seconds_since_tick: Callable[[], float] | None,
        lock_report: Callable[[], object] | None,
        run_report: Callable[[], object] | None = None,
        guard: Guard,
    ) -> None:
        self._registry = registry
        self._seconds_since_tick = seconds_since_tick
        self._reports = {"/debug/locks": lock_report, "/debug/runs": run_report}
        self._guard = guard
        self._rendering = threading.Lock()

    def turned_away(self) -> None:
        """Count a peer for which there was no place."""
        self._guard.count("connection", "ConnectionLimit")

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request; never raises."""
        path = str(environ.get("PATH_INFO", ""))
        try:
            if path == "/metrics":
                # One at a time: rendering holds the interpreter, which the tasks need.
                with self._rendering:
                    if not environ.get(_IS_OPEN, _always)():
                        return _ended(start_response)
                    headers, body = render(
                        self._registry,
                        accept=str(environ.get("HTTP_ACCEPT", "")),
                        accept_encoding=str(environ.get("HTTP_ACCEPT_ENCODING", "")),
                        query=str(environ.get("QUERY_STRING", "")),
                        guard=self._guard,
                    )
                start_response("200 OK", [*headers, ("Content-Length", str(len(body)))])
                return [body]
            peer, host = str(environ.get("REMOTE_ADDR", "")), str(environ.get("HTTP_HOST", ""))
            status, content_type, body = self._answer(path, peer, host)
        except Exception as error:  # noqa: BLE001 - the scraper gets a 500, the worker goes on
            self._guard.failed(path, error)
            status, content_type, body = "500 Internal Server Error", _TEXT, b"telemetry failed; see the worker's log\n"
        start_response(status, [("Content-Type", content_type), ("Content-Length", str(len(body)))])
        return [body]

    def _answer(self, path: str, peer: str, host: str) -> tuple[str, str, bytes]:
        if path == "/healthz" and self._seconds_since_tick is not None:
            seconds = self._seconds_since_tick()
            is_fresh = seconds <= STALE_AFTER_SECONDS
            body = {"status": "ok" if is_fresh else "stalled", "seconds_since_tick": round(seconds, 3)}
            return "200 OK" if is_fresh else "503 Service Unavailable", _JSON, json.dumps(body).encode()
        if (report := self._reports.get(path)) is not None:
            if not _is_loopback(peer):
                return "403 Forbidden", _TEXT, b"only for peers on this host\n"
            if host and not _names_loopback(host):
                return "403 Forbidden", _TEXT, b"only under the name localhost or a loopback address\n"
            return "200 OK", _JSON, json.dumps(report(), default=str).encode()
        return "404 Not Found", _TEXT, b"/metrics, /healthz, /debug/locks or /debug/runs\n"


def _always() -> bool:
    return True


def _ended(start_response: StartResponse) -> Iterable[bytes]:
    start_response("503 Service Unavailable", [("Content-Length", "0")])
    return []


def _is_loopback(peer: str) -> bool:
    try:
        address = ip_address(peer.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _names_loopback(host: str) -> bool:
    """Whether a ``Host`` header names this host by itself.

    A page in a browser on this host can reach the port under a name of its own that resolves to 127.0.0.1.
    """
    name = host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    return name.lower().rstrip(".") == "localhost" or _is_loopback(name)


@dataclass(slots=True)
class _Peer:
    since: float
    has_sent: bool = False
    """Whether its request is complete."""
    is_ended: bool = False
    """Whether its connection was ended here: it reads no answer."""


class _Handler(WSGIRequestHandler):
    timeout = REQUEST_SECONDS

    def parse_request(self) -> bool:
        """Mark the request as complete: from here on the connection is closed for its age only.

        The end of a connection looks like the end of the headers, so what was ended here is no request.
        """
        return super().parse_request() and cast("_Server", self.server).has_sent(self.request)

    def get_environ(self) -> WSGIEnvironment:
        """As the base class, and how the application sees whether the connection is still open."""
        server = cast("_Server", self.server)
        return {**super().get_environ(), _IS_OPEN: partial(server.is_open, self.request)}

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the signature of the base class
        """Log no requests."""


class _Server(WSGIServer):
    request_queue_size = 128

    def __init__(self, *args: Any) -> None:
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._peers: dict[socket.socket, _Peer] = {}
        self._lock = threading.Lock()
        super().__init__(*args)

    def has_sent(self, connection: socket.socket) -> bool:
        """The request of this connection is complete. Returns False if the connection was ended before."""
        with self._lock:
            peer = self._peers.get(connection)
            if peer is None or peer.is_ended:
                return False
            peer.has_sent = True
            return True

    def is_open(self, connection: socket.socket) -> bool:
        """Whether the connection was not ended here."""
        with self._lock:
            peer = self._peers.get(connection)
            return peer is not None and not peer.is_ended

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread, or close it if no place becomes free."""
        if not self._places.acquire(blocking=False):
            time.sleep(_FULL_PAUSE_SECONDS)
            self._end_silent()
            if not self._places.acquire(timeout=_PLACE_SECONDS):
                self.shutdown_request(request)
                cast("EndpointApp", self.get_app()).turned_away()
                return
        with self._lock:
            self._peers[request] = _Peer(time.monotonic())
        try:
            threading.Thread(target=self._serve, args=(request, client_address), name=_THREAD, daemon=True).start()
        except BaseException:
            self._leave(request)
            raise

    def _serve(self, request: socket.socket, client_address: Any) -> None:
        try:
            with suppress(Exception):  # the peer has gone
                self.finish_request(request, client_address)
            self.shutdown_request(request)
        finally:
            self._leave(request)

    def _leave(self, request: socket.socket) -> None:
        with self._lock:
            self._peers.pop(request, None)
        self._places.release()

    def _end_silent(self) -> None:
        with self._lock:
            silent = [
                (peer.since, number, each)
                for number, (each, peer) in enumerate(self._peers.items())
                if not (peer.has_sent or peer.is_ended)
            ]
            oldest = min(silent)[2] if silent else None
            if oldest is not None:
                self._peers[oldest].is_ended = True
        if oldest is not None:
            _end(oldest)
            cast("EndpointApp", self.get_app()).turned_away()

    def service_actions(self) -> None:
        """End connections that are too old. Called between connections, and `_POLL_SECONDS` after the last."""
        oldest = time.monotonic() - REQUEST_SECONDS
        with self._lock:
            old = [each for each, peer in self._peers.items() if peer.since < oldest]
            for each in old:
                self._peers[each].is_ended = True
        for each in old:
            _end(each)

    def get_request(self) -> Any:
        """Accept a connection. Pause without a free file descriptor: the next try fails too."""
        try:
            return super().get_request()
        except OSError:
            time.sleep(_POLL_SECONDS)
            raise

    def server_close(self) -> None:
        """Close the port and every connection."""
        super().server_close()
        with self._lock:
            open_connections = list(self._peers)
        for each in open_connections:
            _end(each)

    def server_bind(self) -> None:
        # HTTPServer.server_bind would resolve the host's name, which may take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore peers that disconnect."""


def _end(connection: socket.socket) -> None:
    """End a connection. Its thread sees the end of the stream, and closes it."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class _Server6(_Server):
    address_family = socket.AF_INET6


class Endpoint:
    """A bound endpoint, served by daemon threads from `start` to `stop`."""

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
            target=self._server.serve_forever, args=(_POLL_SECONDS,), name=_THREAD, daemon=True
        )
        self._thread.start()

    def leave_to_parent(self) -> None:
        """In a forked child: close its copy of the port, which would stay open after the parent has ended."""
        self._thread = None
        self._server.socket.close()

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
