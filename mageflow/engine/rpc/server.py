"""The gRPC server: channel options, authentication, wiring."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc.aio

from mageflow.engine.rpc.dispatcher import Dispatcher
from mageflow.engine.rpc.durable import V1Dispatcher
from mageflow.engine.rpc.events import EventsService
from mageflow.engine.rpc.table import TokenGate
from mageflow.engine.rpc.traces import TraceService
from mageflow.engine.rpc.workflows import Admin, Workflows

if TYPE_CHECKING:
    from mageflow.engine.core import Engine

# Hatchet's default: what is larger is answered RESOURCE_EXHAUSTED.
_MAX_MESSAGE_BYTES = 4 * 1024 * 1024
# The SDK pings every 10 s without calls and without data. A default Python server answers that with
# GOAWAY "too_many_pings" after about 30 s; these three options allow it.
_OPTIONS = [
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1000),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),
]


def bind_grpc(port: int) -> tuple[grpc.aio.Server, TokenGate, int]:
    """Return a server bound to 127.0.0.1 and not started yet, its still closed gate, and its port (0: a free one).

    Raises:
        OSError: the port is taken, or needs privileges.
    """
    gate = TokenGate()
    server = grpc.aio.server(interceptors=[gate], options=_OPTIONS)
    try:
        return server, gate, server.add_insecure_port(f"127.0.0.1:{port}")
    except RuntimeError as error:
        # gRPC does not say why; on a loopback address it is this or a privileged port.
        raise OSError(
            f"port {port} of 127.0.0.1 is in use or not allowed for gRPC: choose another, or 0 for a free one"
        ) from error


async def start_grpc(server: grpc.aio.Server, engine: Engine) -> None:
    """Serve the engine."""
    server.add_generic_rpc_handlers(
        tuple(
            part(engine).handlers()
            for part in (Dispatcher, V1Dispatcher, EventsService, Admin, Workflows, TraceService)
        )
    )
    await server.start()
