"""The local engine: an in-memory, Hatchet-compatible engine for development, demos and tests on one machine.

Owns the engine process (``python -m mageflow.engine``, ``main``) and its typed start from Python (``LocalEngine``).
Refuses everything production needs: persistence, several tenants, TLS, users. Imports nothing of mageflow.

Importing this package is light: gRPC, aiohttp and CEL are loaded in the engine's own process only.
"""

from mageflow.engine.local import EngineStartError, LocalEngine
from mageflow.engine.process import main
from mageflow.engine.tokens import Handshake

__all__ = ["EngineStartError", "Handshake", "LocalEngine", "main"]
