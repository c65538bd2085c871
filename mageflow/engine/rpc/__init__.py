"""gRPC: the five services the SDK speaks to, thin over the engine."""

from mageflow.engine.rpc.server import bind_grpc, start_grpc

__all__ = ["bind_grpc", "start_grpc"]
