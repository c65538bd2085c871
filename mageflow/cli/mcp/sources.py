"""What the tools read: Redis and the workers of this host, opened once for the life of the server."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from mageflow.cli.redis_options import hatchet_namespace, open_redis
from mageflow.cli.top import open_reader
from mageflow.cli.top.sources import Reader
from mageflow.config import Settings
from mageflow.errors import ConfigurationError
from mageflow.store import Keys, RedisPort

__all__ = ["Reading", "Sources", "open_sources"]


@dataclass(frozen=True, slots=True)
class Reading:
    """What is read, and how much of it an answer may show."""

    redis_url: str | None = None
    namespace: str | None = None
    """Of Hatchet, in the spelling of the user."""
    urls: tuple[str, ...] = ()
    """URLs of ``/metrics``; empty for the workers of this host."""
    has_payloads: bool = True
    """Whether a tool may show payloads when they are requested."""
    raw_keys: bool = False
    """Whether keys of locked resources are shown as they are."""
    max_characters: int = 12_000
    """Length of the longest answer."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Open sources."""

    reading: Reading
    settings: Settings
    namespace: str
    """In the form of the SDK."""
    reader: Reader
    """Workers of this host, locks and flows, as ``mageflow top`` reads them."""
    redis: RedisPort | None

    @property
    def keys(self) -> Keys:
        """Keys of the namespace."""
        return Keys(self.settings.key_prefix, self.namespace)

    @property
    def port(self) -> RedisPort:
        """Redis.

        Raises:
            ConfigurationError: None is named.
        """
        if self.redis is None:
            raise ConfigurationError(
                "no Redis is named: start the server with --redis-url redis://HOST:6379, or set MAGEFLOW_REDIS_URL"
            )
        return self.redis


@asynccontextmanager
async def open_sources(reading: Reading) -> AsyncGenerator[Sources]:
    """Open the sources. Redis is not called before a tool needs it; workers that are away are no error.

    Raises:
        ConfigurationError: A URL is not one of ``/metrics``, or not one of Redis.
    """
    settings = Settings()
    async with AsyncExitStack() as opened:
        reader = await opened.enter_async_context(
            open_reader(reading.redis_url, reading.namespace, reading.urls, raw_keys=reading.raw_keys)
        )
        port = None
        if (reading.redis_url or settings.resolved_redis_url()) is not None:
            port = await opened.enter_async_context(open_redis(reading.redis_url, settings))
        yield Sources(reading, settings, hatchet_namespace(reading.namespace), reader, port)
