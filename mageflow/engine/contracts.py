"""The SDK's generated protobuf messages, loaded without loading the SDK.

Owns the one import of ``hatchet_sdk.contracts`` the engine makes. ``import hatchet_sdk.contracts.x`` first runs
``hatchet_sdk/__init__.py``, which costs 1.5 to 2 seconds and pulls in the whole client. The generated modules need
none of it, so while they are imported a bare package with the same search path stands in for ``hatchet_sdk``. It is
taken out again right after, so a later ``import hatchet_sdk`` in the same process runs the real package (and finds
the contract modules already loaded). When the SDK is already imported, nothing is replaced.

Only messages are used. The engine declares its RPC table itself (``rpc/table.py``), which keeps the untyped
generated servicers out.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType

_PACKAGE = "hatchet_sdk"


@contextmanager
def _bare_package() -> Generator[None]:
    """Let submodules of the SDK be imported without running its ``__init__``."""
    if _PACKAGE in sys.modules:
        yield
        return
    spec = find_spec(_PACKAGE)
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError("the local engine needs the contracts of hatchet-sdk: pip install hatchet-sdk")
    stand_in = ModuleType(_PACKAGE)
    stand_in.__path__ = list(spec.submodule_search_locations)
    sys.modules[_PACKAGE] = stand_in
    try:
        yield
    finally:
        del sys.modules[_PACKAGE]


with _bare_package():
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
