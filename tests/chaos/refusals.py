"""The ways in which a server refuses; each lasts for the length of a block."""

import contextlib
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import redis

from mageflow.testing.valkey import EmbeddedValkey

Refusal = Callable[[redis.Redis, EmbeddedValkey], contextlib.AbstractContextManager[None]]


@contextlib.contextmanager
def full(server: redis.Redis, _: EmbeddedValkey) -> Generator[None]:
    """OOM."""
    server.config_set("maxmemory", "100kb")
    yield
    server.config_set("maxmemory", "0")


@contextlib.contextmanager
def forbidden(server: redis.Redis, _: EmbeddedValkey) -> Generator[None]:
    """NOPERM, for EVALSHA itself."""
    server.acl_setuser("default", enabled=True, nopass=True, commands=["-@all", "+ping", "+acl"])
    yield
    server.acl_setuser("default", enabled=True, nopass=True, commands=["+@all"])


@contextlib.contextmanager
def forbidden_in_script(server: redis.Redis, _: EmbeddedValkey) -> Generator[None]:
    """NOPERM, for a command inside a script that comes after others."""
    server.acl_setuser("default", enabled=True, nopass=True, commands=["-zadd"])
    yield
    server.acl_setuser("default", enabled=True, nopass=True, commands=["+@all"])


@contextlib.contextmanager
def no_replicas(server: redis.Redis, _: EmbeddedValkey) -> Generator[None]:
    """NOREPLICAS."""
    server.config_set("min-replicas-to-write", "1")
    yield
    server.config_set("min-replicas-to-write", "0")


@contextlib.contextmanager
def read_only(server: redis.Redis, _: EmbeddedValkey) -> Generator[None]:
    """READONLY: a primary that becomes a replica of nothing."""
    server.execute_command("REPLICAOF", "127.0.0.1", "1")
    yield
    server.execute_command("REPLICAOF", "NO", "ONE")


@contextlib.contextmanager
def master_down(server: redis.Redis, _: EmbeddedValkey) -> Generator[None]:
    """MASTERDOWN: the same, and it serves no old data."""
    server.config_set("replica-serve-stale-data", "no")
    server.execute_command("REPLICAOF", "127.0.0.1", "1")
    yield
    server.execute_command("REPLICAOF", "NO", "ONE")


@contextlib.contextmanager
def disk(server: redis.Redis, _: EmbeddedValkey) -> Generator[None]:
    """MISCONF: a snapshot cannot be written, for a folder has its name."""
    server.config_set("save", "3600 1000000")
    answer: dict[str, Any] = server.config_get("d*")
    obstacle = Path(answer["dir"], answer["dbfilename"])
    obstacle.mkdir()
    with contextlib.suppress(redis.ResponseError):
        server.bgsave()
    while server.info("persistence")["rdb_last_bgsave_status"] == "ok":
        time.sleep(0.02)
    yield
    obstacle.rmdir()
    server.config_set("stop-writes-on-bgsave-error", "no")


@contextlib.contextmanager
def busy(server: redis.Redis, valkey: EmbeddedValkey) -> Generator[None]:
    """BUSY: a script of another client does not end."""
    server.config_set("busy-reply-threshold", "50")

    def loop() -> None:
        with redis.Redis.from_url(valkey.url) as other, contextlib.suppress(redis.RedisError):
            other.eval("while true do end", 0)

    thread = threading.Thread(target=loop)
    thread.start()
    time.sleep(0.3)
    yield
    server.execute_command("SCRIPT", "KILL")
    thread.join()


@contextlib.contextmanager
def away(server: redis.Redis, valkey: EmbeddedValkey) -> Generator[None]:
    """The port has no listener; everything was written to disk."""
    valkey.kill()
    yield
    valkey.start()


REFUSALS = [full, forbidden, forbidden_in_script, no_replicas, read_only, master_down, disk, busy, away]
