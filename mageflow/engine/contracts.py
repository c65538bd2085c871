"""The SDK's generated protobuf messages, imported without the SDK's own ``__init__``, which takes seconds.

The engine imports ``hatchet_sdk.contracts`` only here. It uses the messages but not the generated servicers, which are
untyped; ``rpc/table.py`` declares the methods.
"""

from __future__ import annotations

from mageflow.engine.submodule_import import without_package_init

with without_package_init("hatchet_sdk"):
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
