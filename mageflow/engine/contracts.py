"""The SDK's generated protobuf messages, loaded without loading the SDK (see ``bare.py``).

Owns the one import of ``hatchet_sdk.contracts`` the engine makes. Only messages are used: the engine declares its RPC
tables itself (``rpc/table.py``), which keeps the untyped generated servicers out.
"""

from __future__ import annotations

from mageflow.engine.bare import bare_package

with bare_package("hatchet_sdk"):
    from hatchet_sdk.contracts import dispatcher_pb2, events_pb2, workflows_pb2
    from hatchet_sdk.contracts.v1 import dispatcher_pb2 as v1_dispatcher_pb2
    from hatchet_sdk.contracts.v1 import workflows_pb2 as v1_workflows_pb2
    from hatchet_sdk.contracts.v1.shared import condition_pb2, trigger_pb2

__all__ = [
    "condition_pb2",
    "dispatcher_pb2",
    "events_pb2",
    "trigger_pb2",
    "v1_dispatcher_pb2",
    "v1_workflows_pb2",
    "workflows_pb2",
]
