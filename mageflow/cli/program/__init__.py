"""The user's program: how a command imports it, finds its client, and checks what a worker of it needs."""

from mageflow.cli.program.loading import load_client
from mageflow.cli.program.preflight import address_trouble, troubles_of

__all__ = ["address_trouble", "load_client", "troubles_of"]
