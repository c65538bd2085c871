"""Every kind of server, and every kind of client a program may already have."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.backoff
import redis.cluster
from redis.asyncio.retry import Retry
from redis.retry import Retry as SyncRetry

from mageflow.errors import StoreUnavailableError
from mageflow.signatures import Status
from mageflow.store import LockClaim, RedisPort, list_damaged, search_records
from mageflow.testing.ports import free_port
from tests.locks.runs import start, waiting
from tests.locks.test_usual_case import claim
from tests.store.proxy import TlsProxy
from tests.store.redis_workload import Parts
from tests.store.topologies import (
    ClusterOfThree,
    ServerProcess,
    certificate,
    redis_binary,
    valkey_binary,
)


@pytest.fixture(scope="module")
def alone() -> Iterator[ServerProcess]:
    """One Valkey, with a password."""
    with ServerProcess(valkey_binary(), password="secret") as process:  # noqa: S106
        yield process


@pytest.fixture(scope="module")
def cluster() -> Iterator[ClusterOfThree]:
    """Three masters."""
    with ClusterOfThree(valkey_binary()) as servers:
        yield servers


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate and its key."""
    made = certificate(tmp_path_factory.mktemp("tls"))
    if made is None:
        pytest.skip("there is no openssl on this machine, and pip cannot bring one")
    return made


async def close(client: Any) -> None:
    if isinstance(client, redis.Redis | redis.cluster.RedisCluster):
        client.close()
    elif not isinstance(client, str):
        await client.aclose()


async def exercise(client: Any) -> None:
    parts = Parts(client)
    try:
        await parts.everything()
    finally:
        await parts.aclose()
        await close(client)


async def test_everything_works_on_this_server(server: ServerProcess) -> None:
    """Locks, a deadlock, a thread, flows; every key has a TTL."""
    server.ask("FLUSHALL")
    await exercise(server.url)
    assert [key for key in server.ask("KEYS", "mageflow:*") if server.ask("TTL", key) == -1] == []


Asyncio, Sync = redis.asyncio.Redis, redis.Redis
CLIENTS: dict[str, Callable[[str], Any]] = {
    "RESP2": lambda url: Asyncio.from_url(url, protocol=2),
    "RESP3": lambda url: Asyncio.from_url(url, protocol=3),
    "RESP3 decoded": lambda url: Asyncio.from_url(url, protocol=3, decode_responses=True),
    "decoded": lambda url: Asyncio.from_url(url, decode_responses=True),
    "synchronous": Sync.from_url,
    "synchronous decoded": lambda url: Sync.from_url(url, decode_responses=True),
    "no retries": lambda url: Asyncio.from_url(url, retry=None),
    "retries": lambda url: Asyncio.from_url(url, retry=Retry(redis.backoff.ExponentialBackoff(cap=0.5), 5)),
    "synchronous retries": lambda url: Sync.from_url(url, retry=SyncRetry(redis.backoff.NoBackoff(), 3)),
    "short socket timeout": lambda url: Asyncio.from_url(url, socket_timeout=0.5),
    "pool of two": lambda url: Asyncio.from_url(url, max_connections=2),
    "pool of one": lambda url: Asyncio.from_url(url, max_connections=1),
    "synchronous pool of two": lambda url: Sync.from_url(url, max_connections=2),
    "synchronous single connection": lambda url: Sync.from_url(url, single_connection_client=True),
    "single connection": lambda url: Asyncio.from_url(url, single_connection_client=True),
    "blocking pool of two": lambda url: Asyncio.from_pool(
        redis.asyncio.BlockingConnectionPool.from_url(url, max_connections=2, timeout=5)
    ),
    "blocking pool of one": lambda url: Asyncio.from_pool(
        redis.asyncio.BlockingConnectionPool.from_url(url, max_connections=1, timeout=5)
    ),
    "named": lambda url: Asyncio.from_url(url, client_name="the-callers", health_check_interval=1),
}


@pytest.mark.parametrize("kind", CLIENTS)
async def test_everything_works_over_this_client(alone: ServerProcess, kind: str) -> None:
    """The client is used as it is, password included."""
    alone.ask("FLUSHALL")
    await exercise(CLIENTS[kind](alone.url))


async def test_unix_sockets_work(alone: ServerProcess) -> None:
    """By URL and by client."""
    alone.ask("FLUSHALL")
    await exercise(f"unix://:secret@{alone.socket}?db=3")
    await exercise(Asyncio(unix_socket_path=str(alone.socket), password=alone.password))


@pytest.mark.parametrize("kind", ["url", "asyncio", "synchronous"])
async def test_tls_is_kept(alone: ServerProcess, pem: tuple[Path, Path], kind: str) -> None:
    """The server's certificate is verified; one of another authority is refused with its reason."""
    alone.ask("FLUSHALL")
    with TlsProxy(alone.port, *pem) as proxy:
        url = f"rediss://:secret@127.0.0.1:{proxy.port}/0?ssl_ca_certs={pem[0]}"
        await exercise(url if kind == "url" else (Asyncio if kind == "asyncio" else Sync).from_url(url))
        assert proxy.accepted
        stranger = RedisPort(f"rediss://127.0.0.1:{proxy.port}/0")
        with pytest.raises(StoreUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
            await stranger.command("PING")
        await stranger.aclose()


async def test_tls_of_the_server_itself_works(pem: tuple[Path, Path]) -> None:
    """With a client certificate, which the server asks for by default."""
    binary = redis_binary()
    if binary is None:
        pytest.skip("there is no redis-server on this machine, and pip cannot bring one")
    certificate_file, key = map(str, pem)
    tls_port = free_port()
    options = {
        "tls-port": str(tls_port),
        "tls-cert-file": certificate_file,
        "tls-key-file": key,
        "tls-ca-cert-file": certificate_file,
    }
    server = ServerProcess(binary, options)
    try:
        try:
            server.start()
        except AssertionError:
            if "tls-port" not in server.last_words():  # the directive that a server without TLS does not know
                raise
            pytest.skip("this machine's redis-server was built without TLS")
        await exercise(
            f"rediss://127.0.0.1:{tls_port}/0?ssl_ca_certs={certificate_file}"
            f"&ssl_certfile={certificate_file}&ssl_keyfile={key}"
        )
    finally:
        server.__exit__(None, None, None)


CLUSTER_CLIENTS: dict[str, Callable[[str], Any]] = {
    "asyncio": redis.asyncio.cluster.RedisCluster.from_url,
    "asyncio RESP3 decoded": lambda url: redis.asyncio.cluster.RedisCluster.from_url(
        url, protocol=3, decode_responses=True
    ),
    "asyncio two connections": lambda url: redis.asyncio.cluster.RedisCluster.from_url(url, max_connections=2),
    "synchronous": redis.cluster.RedisCluster.from_url,
}


@pytest.mark.parametrize("kind", CLUSTER_CLIENTS)
async def test_everything_works_on_a_cluster_of_three_masters(cluster: ClusterOfThree, kind: str) -> None:
    """Flows are spread over the nodes, the locks of a namespace stay together, nothing crosses slots."""
    for node in cluster.nodes:
        node.ask("FLUSHALL")
    client = CLUSTER_CLIENTS[kind](cluster.url)
    parts = Parts(client)
    try:
        await parts.everything()
        for _ in range(200):  # a flow's shard is drawn; few of the sixteen may lie on one of the nodes
            if all(cluster.keys()):
                break
            await parts.flows.creation.chain(["one", "two"])
    finally:
        await parts.aclose()
        await close(client)
    keys = cluster.keys()
    assert all(keys), "every node has some"
    assert len([True for each in keys if any("/locks}" in key for key in each)]) == 1
    assert cluster.without_ttl() == []


async def test_slots_may_move_while_locks_are_held(cluster: ClusterOfThree) -> None:
    """The lock keys of a namespace are moved to another master: holders and waiters do not notice."""
    for node in cluster.nodes:
        node.ask("FLUSHALL")
    client = redis.asyncio.cluster.RedisCluster.from_url(cluster.url)
    parts = Parts(client, lease_seconds=6)
    try:
        slot = int(client.keyslot(parts.locks._store._keys[0]))
        async with parts.locks.resource("orders").acquire() as lease:
            waiter = start(_enter(parts))
            await waiting(parts.locks, 1)
            move = cluster.moving([slot])
            await asyncio.to_thread(move.__enter__)
            counts = [node.ask("CLUSTER", "COUNTKEYSINSLOT", slot) for node in cluster.nodes]
            await asyncio.to_thread(move.__exit__, None, None, None)
            await asyncio.sleep(4.5)  # two renewals
            lease.check()
        async with asyncio.timeout(60):
            await waiter
        assert min(counts) == 0 < sorted(counts)[1], "in two places"
        assert sorted(node.ask("CLUSTER", "COUNTKEYSINSLOT", slot) for node in cluster.nodes)[:2] == [0, 0]
    finally:
        await parts.aclose()
        await client.aclose()


@pytest.mark.parametrize("kind", ["asyncio", "synchronous"])
async def test_keys_in_two_places_are_an_outage_that_passes(cluster: ClusterOfThree, kind: str) -> None:
    """redis-py repeats a TRYAGAIN for half a second and then raises a class without the word of the server."""
    client = CLUSTER_CLIENTS[kind](cluster.url)
    port = RedisPort(client)
    try:
        for key in ("{pair}:a", "{pair}:b"):
            await port.command("SET", key, "1", "EX", 60)
        move = cluster.moving([int(client.keyslot("{pair}:a"))])
        await asyncio.to_thread(move.__enter__)
        with pytest.raises(StoreUnavailableError, match="TTL exhausted") as raised:
            await port.command("MGET", "{pair}:a", "{pair}:b")
        await asyncio.to_thread(move.__exit__, None, None, None)
        assert (raised.value.outage, raised.value.retryable) == ("try_again", True)
        assert await port.command("MGET", "{pair}:a", "{pair}:b") == ["1", "1"]
    finally:
        await port.aclose()
        await close(client)


@pytest.mark.parametrize("first", ["locks", "other keys"])
async def test_no_lock_is_taken_or_freed_while_keys_are_in_two_places(cluster: ClusterOfThree, first: str) -> None:
    """Each call is refused before its first write, by both masters.

    The master that takes a slot over would take keys which are still on their way for missing ones, and make them anew.
    """
    for node in cluster.nodes:
        node.ask("FLUSHALL")
    client = redis.asyncio.cluster.RedisCluster.from_url(cluster.url)
    parts = Parts(client)
    store = parts.locks._store
    name = store._keys[0]

    def orders(request_id: str, resource: str = "orders") -> LockClaim:
        return claim(request_id, f"{request_id}:1", resource)

    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: store.acquire(orders("free", "stock")),
        lambda: store.acquire(orders("late")),
        lambda: store.release("alone", orders("alone", "bills").resources),
        lambda: store.release("holder", orders("holder").resources),
        lambda: store.withdraw("waiter", orders("waiter").resources),
    ]
    try:
        for each in (orders("alone", "bills"), orders("holder"), orders("waiter")):
            await store.acquire(each)
        move = cluster.moving([int(client.keyslot(name))], lambda key: (key == name) == (first == "locks"))
        await asyncio.to_thread(move.__enter__)
        before = cluster.values()
        outages: list[str | None] = []
        for call in calls:
            with pytest.raises(StoreUnavailableError) as raised:
                await call()
            outages.append(raised.value.outage)
        after = cluster.values()
        await asyncio.to_thread(move.__exit__, None, None, None)
        assert outages == ["try_again"] * len(calls)
        assert after == before
        assert [(await call()).verdict.kind for call in calls] == ["granted", "queued", "ended", "ended", "granted"]
    finally:
        await parts.aclose()
        await client.aclose()


@pytest.mark.parametrize("first", ["due", "damaged", "other keys"])
async def test_no_index_is_read_or_made_anew_while_keys_are_in_two_places(cluster: ClusterOfThree, first: str) -> None:
    """Scripts that name one index of a shard use others: no note is lost, no answer lacks a part."""
    for node in cluster.nodes:
        node.ask("FLUSHALL")
    client = redis.asyncio.cluster.RedisCluster.from_url(cluster.url)
    parts = Parts(client)
    chain = await parts.flows.creation.chain(["one", "two"])
    await parts.flows.start(chain)
    keys = parts.store.keys.parse(chain.key)
    other = keys.record.replace(keys.id, f"{keys.id[1:-1]}0{keys.id[-1]}")
    await parts.store.put_aside(other, "first")

    async def searched() -> list[str]:
        found = search_records(parts.port, parts.store.keys, kinds=["chain"], statuses=[Status.ACTIVE])
        return [each.key async for each in found]

    async def census() -> float:
        return (await parts.store.census()).active["chain"]

    async def noted() -> list[str]:
        return [each.reason for each in await list_damaged(parts.port, parts.store.keys)]

    async def cleared() -> list[str]:
        return [each.reason for each in await list_damaged(parts.port, parts.store.keys, clear=True)]

    async def due() -> list[str]:
        return list((await parts.store.due(10, 60.0)).keys)

    async def aside() -> None:
        await parts.store.put_aside(chain.key, "second")

    # All that the script of due uses is in one place when the other keys move.
    is_whole = first == "other keys"
    calls: list[Callable[[], Awaitable[Any]]] = [searched, census, *([] if is_whole else [due]), aside, noted, cleared]
    try:
        await asyncio.sleep(0.1)  # until the chain is due
        slot = int(client.keyslot(keys.due))
        indexes = (":due", ":damaged") if is_whole else (f":{first}",)
        move = cluster.moving([slot], lambda key: key.endswith(indexes) != is_whole)
        await asyncio.to_thread(move.__enter__)
        before = cluster.values()
        outages: list[str | None] = []
        for call in calls:
            try:
                outages.append(f"answered {await call()}")
            except StoreUnavailableError as error:
                outages.append(error.outage)
        after = cluster.values()
        await asyncio.to_thread(move.__exit__, None, None, None)
        assert outages == ["try_again"] * len(calls)
        assert after == before
        both = ["first", "second"]
        expected = [[chain.key], 1, *([] if is_whole else [[chain.key]]), None, both, both]
        assert [await call() for call in calls] == expected
    finally:
        await parts.aclose()
        await client.aclose()


async def test_a_damaged_index_is_not_filled_from_a_part_of_its_shard(cluster: ClusterOfThree) -> None:
    """The index has another type, and what it would be filled from is on its way to another master: it waits."""
    for node in cluster.nodes:
        node.ask("FLUSHALL")
    client = redis.asyncio.cluster.RedisCluster.from_url(cluster.url)
    parts = Parts(client)
    chain = await parts.flows.creation.chain(["one", "two"])
    await parts.flows.start(chain)
    keys = parts.store.keys.parse(chain.key)
    other = keys.record.replace(keys.id, f"{keys.id[1:-1]}0{keys.id[-1]}")
    await parts.store.put_aside(other, "first")
    try:
        move = cluster.moving([int(client.keyslot(keys.due))], lambda key: not key.endswith((":due", ":damaged")))
        await asyncio.to_thread(move.__enter__)
        await parts.port.command("SET", keys.due, "damage", "EX", 1000)
        before = cluster.values()
        with pytest.raises(StoreUnavailableError) as raised:
            await parts.store.due(10, 60.0)
        after = cluster.values()
        await asyncio.to_thread(move.__exit__, None, None, None)
        assert raised.value.outage == "try_again"
        assert after == before
        assert list((await parts.store.due(10, 60.0)).keys) == [chain.key]
    finally:
        await parts.aclose()
        await client.aclose()


async def test_a_slot_that_moves_below_a_script_is_an_outage_that_passes(cluster: ClusterOfThree) -> None:
    """A script of one key meets another key of the slot that is not here: Redis has no word like TRYAGAIN for it."""
    client = redis.asyncio.cluster.RedisCluster.from_url(cluster.url)
    port = RedisPort(client)
    script = "return redis.call('EXISTS', KEYS[1] .. ':x')"
    try:
        for key in ("{under}:a", "{under}:b"):
            await port.command("SET", key, "1", "EX", 60)
        move = cluster.moving([int(client.keyslot("{under}:a"))])
        await asyncio.to_thread(move.__enter__)
        raised: list[StoreUnavailableError] = []
        for key in ("{under}:a", "{under}:b"):  # one of them has moved
            try:
                await port.command("EVAL", script, 1, key)
            except StoreUnavailableError as error:
                raised.append(error)
        await asyncio.to_thread(move.__exit__, None, None, None)
        assert [each.outage for each in raised] == ["try_again"]
    finally:
        await port.aclose()
        await client.aclose()


async def _enter(parts: Parts) -> None:
    async with parts.locks.resource("orders").acquire():
        pass


@pytest.mark.parametrize("kind", ["asyncio", "cluster", "blocking"])
def test_a_second_event_loop_gets_connections_of_its_own(
    alone: ServerProcess, cluster: ClusterOfThree, kind: str
) -> None:
    """With every kind of client: connections of one loop are of no use to another."""
    clients: dict[str, Callable[[], Any]] = {
        "asyncio": lambda: Asyncio.from_url(alone.url, client_name="shared"),
        "cluster": lambda: redis.asyncio.cluster.RedisCluster.from_url(cluster.url, client_name="shared"),
        "blocking": lambda: Asyncio.from_pool(
            redis.asyncio.BlockingConnectionPool.from_url(alone.url, max_connections=3, timeout=7, client_name="shared")
        ),
    }
    client = clients[kind]()
    port = RedisPort(client)

    async def use() -> str:
        await port.command("SET", "{x}:a", "täst", "EX", 5)
        assert await port.command("GET", "{x}:a") == "täst"
        return "" if kind == "cluster" else await port.command("CLIENT", "GETNAME")

    async def first() -> str:
        name = await use()
        await asyncio.to_thread(asyncio.run, second())
        await use()
        await client.aclose()
        return name

    names: list[str] = []

    async def second() -> None:
        names.append(await use())
        await port.aclose()

    names.append(asyncio.run(first()))
    assert names == (["", ""] if kind == "cluster" else ["shared", "shared"])
