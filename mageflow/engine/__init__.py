"""The local engine: an in-memory, Hatchet-compatible engine for development, demos and tests on one machine.

``LocalEngine`` starts it from Python; ``python -m mageflow.engine`` and ``main`` run it in the current process. It has
none of what production needs: no persistence, no second tenant, no TLS, no users. ``core.py`` shows the parts.

It imports ``mageflow.errors`` and ``mageflow.distribution``, and nothing else of mageflow. Importing this package is
cheap: gRPC, aiohttp and CEL are loaded in the engine's own process only.
"""

from mageflow.engine.local import LocalEngine
from mageflow.engine.process import main
from mageflow.engine.tokens import Handshake
from mageflow.errors import EngineStartError

__all__ = ["EngineStartError", "Handshake", "LocalEngine", "main"]
