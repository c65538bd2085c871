"""gRPC: the services that the SDK calls."""

from mageflow.engine.rpc.server import bind_grpc, start_grpc

__all__ = ["bind_grpc", "start_grpc"]
