"""Options and connection of the commands that read Redis."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mageflow.errors import ConfigurationError

if TYPE_CHECKING:
    from mageflow.config import Settings
    from mageflow.store import RedisPort

__all__ = ["PIPE_WIDTH", "hatchet_namespace", "open_redis", "redis_options"]

PIPE_WIDTH = 180
"""Columns of the output if it is no terminal. Ids are not wrapped, so that ``grep`` finds them."""

F = TypeVar("F", bound=Callable[..., Any])


def redis_options(command: F) -> F:
    """Add ``--redis-url`` and ``--namespace`` to a command."""
    url = click.option("--redis-url", metavar="URL", help="URL of Redis. Default: MAGEFLOW_REDIS_URL or REDIS_URL.")
    namespace = click.option(
        "--namespace",
        metavar="NAME",
        envvar="HATCHET_CLIENT_NAMESPACE",
        help="Namespace of Hatchet. Default: HATCHET_CLIENT_NAMESPACE.",
    )
    return url(namespace(command))


def hatchet_namespace(text: str | None) -> str:
    """The namespace in the form that the SDK uses (``hatchet_sdk.config.ClientConfig``)."""
    return f"{text.removesuffix('_')}_".lower() if text else ""


@asynccontextmanager
async def open_redis(url: str | None, settings: "Settings") -> "AsyncGenerator[RedisPort]":
    """A connection to the Redis of the option or of the environment. It is closed at the end of the block.

    Raises:
        ConfigurationError: There is no URL, or it is not one of Redis.
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
