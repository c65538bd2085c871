"""The gRPC server: channel options, authentication, and the services with the parts that each uses."""

from __future__ import annotations

import grpc
import grpc.aio

from mageflow.engine.core import Engine
from mageflow.engine.rpc.admin import RegistrationMethods, RunMethods
from mageflow.engine.rpc.attempts import AttemptMethods, ReportMethods
from mageflow.engine.rpc.durable import DurableService
from mageflow.engine.rpc.events import EventsService
from mageflow.engine.rpc.subscriptions import SubscriptionMethods
from mageflow.engine.rpc.table import TokenInterceptor, service
from mageflow.engine.rpc.traces import TraceService
from mageflow.engine.rpc.workers import WorkerMethods
from mageflow.engine.rpc.workflows import WorkflowService

# Hatchet's default. A larger message is answered RESOURCE_EXHAUSTED.
_MAX_MESSAGE_BYTES = 4 * 1024 * 1024
# The SDK pings every 10 s, also without calls and data. A Python server with default options answers that with
# GOAWAY "too_many_pings" after about 30 s; the first three options allow it.
_OPTIONS = [
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1000),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),
]


def bind_grpc(port: int) -> tuple[grpc.aio.Server, TokenInterceptor, int]:
    """Bind a server to 127.0.0.1 without starting it. Port 0 takes a free one.

    Returns:
        The server, its interceptor, which rejects every call until it knows the token, and the port.

    Raises:
        OSError: the port is in use or not allowed.
    """
    interceptor = TokenInterceptor()
    server = grpc.aio.server(interceptors=[interceptor], options=_OPTIONS)
    try:
        return server, interceptor, server.add_insecure_port(f"127.0.0.1:{port}")
    except RuntimeError as error:
        # gRPC gives no reason. For a loopback address it is this or a privileged port.
        raise OSError(
            f"port {port} of 127.0.0.1 is in use or not allowed for gRPC: choose another, or 0 for a free one"
        ) from error


async def start_grpc(server: grpc.aio.Server, engine: Engine) -> None:
    """Serve the engine."""
    server.add_generic_rpc_handlers(_services(engine))
    await server.start()


def _services(engine: Engine) -> tuple[grpc.GenericRpcHandler, ...]:
    tenant_id, repository = engine.tenant_id, engine.repository
    durable = DurableService(repository, engine.durable)
    dispatcher = {
        **WorkerMethods(tenant_id, repository, engine.workers).table(),
        **ReportMethods(tenant_id, repository, engine.lifecycle, engine.batches).table(),
        **AttemptMethods(engine.clock, repository, engine.lifecycle, engine.timeouts).table(),
        **SubscriptionMethods(repository, engine.results, engine.run_events).table(),
        **durable.dispatcher_table(),
    }
    admin = {
        **RegistrationMethods(engine.registry).table(),
        **RunMethods(repository, engine.runs, engine.bulk, engine.replays).table(),
    }
    return (
        service("Dispatcher", dispatcher),
        durable.handlers(),
        EventsService(tenant_id, repository, engine.events, engine.run_events).handlers(),
        service("v1.AdminService", admin),
        WorkflowService(engine.runs, engine.schedules, engine.rate_limits).handlers(),
        TraceService(engine.traces).handlers(),
    )
