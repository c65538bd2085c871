import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import redis

import mageflow.store.locks.store
from mageflow.interceptors import Interceptor, InterceptorChain
from mageflow.locks import LockService
from mageflow.store import Keys, LockStore, RedisPort
from mageflow.testing.valkey import EmbeddedValkey
from tests.store.conftest import valkey  # noqa: F401 - a fixture


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[EmbeddedValkey]:
    """One real server for the session, with the scripts loaded: otherwise a first call costs two round trips."""
    with EmbeddedValkey() as server, redis.Redis.from_url(server.url) as client:
        for name in ("lock_acquire", "lock_release", "lock_renew", "lock_end", "lock_snapshot"):
            client.script_load(getattr(mageflow.store.locks.store, f"_{name.removeprefix('lock_').upper()}").source)
        yield server


@pytest.fixture
async def store(valkey: EmbeddedValkey) -> AsyncIterator[LockStore]:  # noqa: F811 - as pytest has it
    """The lock scripts over the real server."""
    port = RedisPort(valkey.url)
    yield LockStore(port, Keys("mageflow", "tests"))
    await port.aclose()


Services = Callable[..., LockService]


@pytest.fixture
async def services(valkey: EmbeddedValkey) -> AsyncIterator[Services]:  # noqa: F811 - as pytest has it
    """Makes lock services, each like another process: own session, own connections."""
    made: list[tuple[LockService, RedisPort]] = []

    def make(interceptor: Interceptor | None = None, *, lease_seconds: float = 15.0, **options: object) -> LockService:
        interceptor = InterceptorChain([interceptor] if interceptor is not None else [])
        port = RedisPort(valkey.url, interceptor)
        store = LockStore(port, Keys("mageflow", str(options.pop("namespace", "tests"))))
        options.setdefault("victim_backoff_seconds", 0.0)
        service = LockService(store, interceptor, lease_seconds=lease_seconds, **options)  # type: ignore[arg-type]
        made.append((service, port))
        return service

    yield make
    for service, port in made:
        await service.aclose()
        await port.aclose()
    await asyncio.sleep(0)


@pytest.fixture
def locks(services: Services) -> LockService:
    """One lock service."""
    return services()
