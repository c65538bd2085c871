"""The local engine: an in-memory, Hatchet-compatible engine for development, demos and tests on one machine.

Owns the engine process (``python -m mageflow.engine``, ``main``) and its typed start from Python (``LocalEngine``).
Refuses everything production needs: persistence, several tenants, TLS, users. Imports only the errors
and the name of the distribution from the rest of mageflow.

Importing this package is light: gRPC, aiohttp and CEL are loaded in the engine's own process only.
"""

from mageflow.engine.local import LocalEngine
from mageflow.engine.process import main
from mageflow.engine.tokens import Handshake
from mageflow.errors import EngineStartError

__all__ = ["EngineStartError", "Handshake", "LocalEngine", "main"]
