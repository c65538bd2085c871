"""How the metrics of one process are had: at a port, or inside a web application.

A worker serves a port by itself. A program that only sends work calls one of the two.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from mageflow.forks import when_forked
from mageflow.telemetry.discovery import ServiceDirectory
from mageflow.telemetry.exposition import Endpoint, EndpointApp, bind
from mageflow.telemetry.names import events
from mageflow.telemetry.recorder import Recorder
from mageflow.telemetry.rendering import render

__all__ = ["ASGIApp", "MetricsPort", "asgi_app"]

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
ASGIApp = Callable[[_Message, _Receive, _Send], Awaitable[None]]


class MetricsPort:
    """The metrics endpoint of one process, and its entry for service discovery. Never raises.

    Args:
        recorder: Whose registry is served. Its settings say where.
        name: Of the worker or sender. One that is restarted gets its old port, if there is a discovery directory.
    """

    def __init__(self, recorder: Recorder, name: str) -> None:
        self._recorder = recorder
        self._name = name
        self._directory: ServiceDirectory | None = None
        self.endpoint: Endpoint | None = None
        """None before `start`, after `stop`, in a forked child, and if no port was free."""
        when_forked(self._begin_in_child)

    @property
    def url(self) -> str:
        """The URL of ``/metrics``; empty without an endpoint."""
        return self.endpoint.url if self.endpoint else ""

    def _begin_in_child(self) -> None:
        """The parent serves, under its own entry. Another port can be started here."""
        endpoint, self.endpoint, self._directory = self.endpoint, None, None
        if endpoint is not None:
            endpoint.leave_to_parent()

    def start(
        self,
        *,
        seconds_since_tick: Callable[[], float] | None = None,
        lock_report: Callable[[], object] | None = None,
        run_report: Callable[[], object] | None = None,
    ) -> None:
        """Serve the registry in daemon threads, on the first free port of the settings.

        Args:
            seconds_since_tick: For ``/healthz``; without it the path does not exist.
            lock_report: For ``/debug/locks``; without it the path does not exist.
            run_report: The same for ``/debug/runs``.
        """
        with self._recorder.guards.exposition.catching("metrics.start"):
            self._start(seconds_since_tick, lock_report, run_report)

    def _start(
        self,
        seconds_since_tick: Callable[[], float] | None,
        lock_report: Callable[[], object] | None,
        run_report: Callable[[], object] | None,
    ) -> None:
        recorder, settings = self._recorder, self._recorder.settings
        first = settings.metrics_port
        ports = [0] if first == 0 else list(range(first, first + settings.metrics_port_span))
        if settings.metrics_sd_dir is not None:
            self._directory = ServiceDirectory(settings.metrics_sd_dir)
            with recorder.guards.exposition.catching("metrics.prune"):
                mine = [port for port in self._directory.prune().get(self._name, ()) if port in ports]
                ports = [*mine, *(port for port in ports if port not in mine)]
        endpoint = bind(settings.metrics_addr, ports)
        if endpoint is None:
            recorder.log.emit(
                events.METRICS_BIND_FAILED, addr=settings.metrics_addr, ports_tried=len(ports), error_type="OSError"
            )
            self._directory = None
            return
        endpoint.start(
            EndpointApp(
                recorder.registry,
                seconds_since_tick=seconds_since_tick,
                lock_report=lock_report,
                run_report=run_report,
                guard=recorder.guards.exposition,
            )
        )
        self.endpoint = endpoint
        recorder.log.emit(events.METRICS_LISTENING, addr=endpoint.address, port=endpoint.port)
        if self._directory is not None:
            with recorder.guards.exposition.catching("metrics.publish"):
                self._directory.publish(endpoint.address, endpoint.port, self._name)

    def stop(self) -> None:
        """Free the port and remove the entry. Blocks for up to a tenth of a second."""
        with self._recorder.guards.exposition.catching("metrics.stop"):
            if self._directory is not None:
                self._directory.withdraw()
            if self.endpoint is not None:
                endpoint, self.endpoint = self.endpoint, None
                endpoint.stop()


def asgi_app(recorder: Recorder) -> ASGIApp:
    """An ASGI application that answers each request with the metrics of the recorder's registry."""
    rendering = threading.Lock()

    def answer(accept: str) -> tuple[int, str, bytes]:
        try:
            # One at a time: rendering holds the interpreter.
            with rendering:
                if recorder.settings.metrics:
                    recorder.zero_enqueues()
                headers, body = render(
                    recorder.registry, accept=accept, accept_encoding="", query="", guard=recorder.guards.exposition
                )
                return 200, dict(headers)["Content-Type"], body
        except Exception as error:  # noqa: BLE001 - the scraper gets a 500, the application goes on
            recorder.guards.exposition.failed("asgi", error)
            return 500, "text/plain; charset=utf-8", b"telemetry failed; see the log of the application\n"

    async def app(scope: _Message, receive: _Receive, send: _Send) -> None:
        if scope["type"] == "lifespan":  # only if a server runs it by itself
            while (message := await receive())["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": f"{message['type']}.complete"})
            return
        if scope["type"] != "http":
            return
        accept = b",".join(value for name, value in scope["headers"] if name == b"accept").decode("latin-1")
        # In a thread: rendering would stall the requests of the application.
        status, content_type, body = await asyncio.to_thread(answer, accept)
        headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    return app
