"""What the commands that look at what is kept in Redis share: options, the connection, the console they draw on.

It refuses to read or draw anything itself: that is each command's own.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mageflow.errors import ConfigurationError

if TYPE_CHECKING:
    from rich.console import Console

    from mageflow.config import Settings
    from mageflow.store import RedisPort

__all__ = ["hatchet_namespace", "open_console", "open_redis", "state_options"]

_PIPE_WIDTH = 180
"""Columns where no terminal says how many it has: ids must stay whole for grep."""

F = TypeVar("F", bound=Callable[..., Any])


def state_options(command: F) -> F:
    """Add ``--redis-url`` and ``--namespace`` to a command."""
    url = click.option(
        "--redis-url", metavar="URL", help="Where it is kept; MAGEFLOW_REDIS_URL or REDIS_URL when not given."
    )
    namespace = click.option(
        "--namespace",
        envvar="HATCHET_CLIENT_NAMESPACE",
        help="Hatchet's namespace; HATCHET_CLIENT_NAMESPACE when not given.",
    )
    return url(namespace(command))


def hatchet_namespace(text: str | None) -> str:
    """The namespace as the SDK makes it of what it is given (``hatchet_sdk.config.ClientConfig``)."""
    return f"{text.removesuffix('_')}_".lower() if text else ""


@asynccontextmanager
async def open_redis(url: str | None, settings: "Settings") -> "AsyncGenerator[RedisPort]":
    """A connection to the Redis the options or the environment name; closed at the end.

    Raises:
        ConfigurationError: None is named, or the URL is none of Redis's.
    """
    from mageflow.store import RedisPort

    found = url or settings.resolved_redis_url()
    if found is None:
        raise ConfigurationError(
            "no Redis is named: write --redis-url redis://HOST:6379, or set MAGEFLOW_REDIS_URL or REDIS_URL"
        )
    port = RedisPort(found)
    try:
        yield port
    finally:
        await port.aclose()


def open_console() -> "Console":
    """Standard output, wide enough for tables also where it is no terminal."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    return console
