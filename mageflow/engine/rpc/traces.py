"""OTLP ``TraceService`` on the same port, where the SDK's instrumentor exports to."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import grpc

from mageflow.engine.rpc.table import raw_unary, service

if TYPE_CHECKING:
    from mageflow.engine.core import Engine

_log = logging.getLogger("mageflow.engine.rpc")


class TraceService:
    """The service. Its messages come with OpenTelemetry, which whoever exports has installed; loaded when needed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return the service's table."""
        return service("opentelemetry.proto.collector.trace.v1.TraceService", {"Export": raw_unary(self._export)})

    def _export(self, message: bytes) -> bytes:
        try:
            from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
                ExportTraceServiceRequest,
            )
        except ImportError:
            _log.warning("spans were sent but cannot be kept: pip install opentelemetry-proto beside the engine")
            return b""
        self._engine.traces.export(ExportTraceServiceRequest.FromString(message))
        return b""
