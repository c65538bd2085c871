"""mageflow: an observability-first client for Hatchet.

Programs import everything from here. Names are resolved on first use (PEP 562): ``import mageflow`` alone loads neither
the SDK nor Redis.
"""

from typing import TYPE_CHECKING

from mageflow._lazy import lazy_names

if TYPE_CHECKING:
    from mageflow.client import HatchetMageflow, Mageflow
    from mageflow.config import Settings
    from mageflow.interceptors import Interceptor
    from mageflow.locks import Lease, Resource
    from mageflow.signatures import (
        ChainSignature,
        ReturnValue,
        Status,
        SwarmConfig,
        SwarmSignature,
        TaskError,
        TaskSignature,
    )
    from mageflow.types import AcceptParams

__all__ = [
    "AcceptParams",
    "ChainSignature",
    "HatchetMageflow",
    "Interceptor",
    "Lease",
    "Mageflow",
    "Resource",
    "ReturnValue",
    "Settings",
    "Status",
    "SwarmConfig",
    "SwarmSignature",
    "TaskError",
    "TaskSignature",
]

_HOMES = {
    "mageflow.types": ("AcceptParams",),
    "mageflow.signatures": (
        "ChainSignature",
        "ReturnValue",
        "Status",
        "SwarmConfig",
        "SwarmSignature",
        "TaskError",
        "TaskSignature",
    ),
    "mageflow.client": ("HatchetMageflow", "Mageflow"),
    "mageflow.interceptors": ("Interceptor",),
    "mageflow.locks": ("Lease", "Resource"),
    "mageflow.config": ("Settings",),
}

_METHODS = {
    "achain": "await client.achain([...])",
    "asign": "await client.asign(task)",
    "aswarm": "await client.aswarm([...])",
    "chain": "await client.chain([...])",
    "init_mageflow": "client = Mageflow(Hatchet(), redis_client=...), which needs no call before the first use",
    "load_signature": "await client.load_signature(key)",
    "lock_task": "await client.load_signature(key): every change of a signature is atomic",
    "pause": "await client.suspend(key)",
    "remove": "await client.remove(key)",
    "resume": "await client.resume(key)",
    "sign": "await client.sign(task)",
    "start_mageflow": "client = Mageflow(Hatchet(), redis_client=...), which needs no call before the first use",
    "swarm": "await client.swarm([...])",
}
"""The functions of mageflow 0.3, which belong to a client here: one process may have several."""

__getattr__, __dir__ = lazy_names(globals(), _HOMES, _METHODS)
