"""OTLP ``TraceService`` on the engine's gRPC port, to which the SDK's instrumentor exports."""

from __future__ import annotations

import logging

import grpc

from mageflow.engine.rpc.table import raw_unary, service
from mageflow.engine.traces import Traces

_log = logging.getLogger("mageflow.engine.rpc")


class TraceService:
    """The service. Its messages are part of OpenTelemetry, and are imported when the first export arrives.

    Args:
        traces: keeps the spans.
    """

    def __init__(self, traces: Traces) -> None:
        self._traces = traces

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return the service."""
        return service("opentelemetry.proto.collector.trace.v1.TraceService", {"Export": raw_unary(self._export)})

    def _export(self, message: bytes) -> bytes:
        try:
            from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
                ExportTraceServiceRequest,
            )
        except ImportError:
            _log.warning("spans were sent but cannot be kept: pip install opentelemetry-proto beside the engine")
            return b""
        self._traces.export(ExportTraceServiceRequest.FromString(message))
        return b""
