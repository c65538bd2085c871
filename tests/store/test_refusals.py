"""What each answer of Redis means: worth repeating, or not."""

import pytest
import redis.exceptions
from redis._parsers.base import BaseParser

from mageflow.config import Settings
from mageflow.errors import StoreError, StoreRefusedError, StoreUnavailableError
from mageflow.interceptors import Event, Interceptor, RedisOutage
from mageflow.store import Keys, RedisPort, Store
from mageflow.store.redis.refusals import as_store_error
from mageflow.testing.valkey import EmbeddedValkey

PASSES = {
    "OOM command not allowed when used memory > 'maxmemory'.": "full",
    "NOPERM User default has no permissions to run the 'evalsha' command": "forbidden",
    "ERR ACL failure in script: User default has no permissions to run the 'hget' command": "forbidden",
    "NOREPLICAS Not enough good replicas to write.": "no_replicas",
    "MISCONF Valkey is configured to save RDB snapshots, but it's currently unable to persist to disk.": "disk",
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.": "busy",
    "READONLY You can't write against a read only replica.": "read_only",
    "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)": "read_only",
    "LOADING Redis is loading the dataset in memory": "loading",
    "CLUSTERDOWN Hash slot not served": "cluster_down",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.": "master_down",
    "TRYAGAIN Multiple keys request during rehashing of slot": "try_again",
    "ERR max number of clients reached": "connections",
}
STAYS = [
    "WRONGPASS invalid username-password pair or user is disabled.",
    "NOAUTH Authentication required.",
    "ERR unknown command 'EVALSHA', with args beginning with: ",
    "MOVED 3999 127.0.0.1:6381",
    "CROSSSLOT Keys in request don't hash to the same slot",
]


def parsed(line: str) -> Exception:
    """As redis-py reads the line."""
    return BaseParser.parse_error(line)


@pytest.mark.parametrize(("line", "outage"), PASSES.items())
def test_a_refusal_that_passes_is_an_outage_with_advice(line: str, outage: str) -> None:
    """It is retryable, and its text says what to do."""
    error = as_store_error("settle", parsed(line))
    assert isinstance(error, StoreUnavailableError)
    assert (error.outage, error.retryable) == (outage, True)
    assert str(error).endswith(error.advice)


@pytest.mark.parametrize("line", STAYS)
def test_a_refusal_that_stays_is_not_repeated(line: str) -> None:
    """A wrong password, command or server."""
    error = as_store_error("settle", parsed(line))
    assert isinstance(error, StoreRefusedError)
    assert not error.retryable


def test_a_key_of_another_type_is_neither() -> None:
    """It is damage of one record, and says nothing about the server."""
    error = as_store_error("settle", parsed("WRONGTYPE Operation against a key holding the wrong kind of value"))
    assert type(error) is StoreError


async def test_a_wrong_password_fails_at_once(valkey: EmbeddedValkey) -> None:
    """Although redis-py calls it a connection error; the text says what to correct."""
    port = RedisPort(f"redis://nobody:wrong@127.0.0.1:{valkey.port}/0")
    with pytest.raises(StoreRefusedError, match=r"WRONGPASS|invalid username-password.*correct the password"):
        await port.command("PING")
    await port.aclose()


@pytest.mark.parametrize("operation", ["load", "definitions"])
async def test_the_error_of_the_driver_is_the_cause_of_an_outage(operation: str) -> None:
    """Tools that report errors show it, and code looks for a timeout there. No cause is its own."""
    store = Store(RedisPort("redis://127.0.0.1:1/0"), Keys("mageflow", ""), Settings())
    with pytest.raises(StoreUnavailableError) as refused:
        await getattr(store, operation)(store.keys.new("task", "a" * 32).record)

    assert isinstance(refused.value.__cause__, redis.exceptions.ConnectionError)


async def test_an_outage_is_reported_at_its_begin_and_its_end(valkey: EmbeddedValkey) -> None:
    """Once each, although many calls fail; reads that a full server answers do not end it."""
    seen: list[RedisOutage] = []

    class Seeing(Interceptor):
        def event(self, event: Event) -> None:
            if isinstance(event, RedisOutage):
                seen.append(event)

    port = RedisPort(valkey.url, Seeing())
    await port.command("CONFIG", "SET", "maxmemory", "100kb")
    for _ in range(3):
        with pytest.raises(StoreUnavailableError, match="raise maxmemory"):
            await port.command("SET", "mageflow:x", "1", "EX", 10)
        assert await port.command("GET", "mageflow:x") is None
    await port.command("CONFIG", "SET", "maxmemory", "0")
    assert [(each.is_over, each.reason, each.operation) for each in seen] == [(False, "full", "set")]
    await port.command("SET", "mageflow:x", "1", "EX", 10)
    await port.command("SET", "mageflow:x", "1", "EX", 10)
    assert [(each.is_over, each.operation, each.failures) for each in seen[1:]] == [(True, "set", 3)]
    assert seen[1].seconds > 0
    await port.aclose()
