"""The faults: what each does, what it needs, and how long it lasts."""

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import redis

from mageflow.store import SHARDS
from mageflow.types import OutageReason
from tests.chaos.refusals import REFUSALS, Refusal, away
from tests.chaos.stage import Needs, Stage

SECONDS = 4.0
NOTICE_SECONDS = 60.0
"""The other masters notice a death after 3 s, on a busy machine later."""
LOADED_COMMANDS = 12_000


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong while flows run.

    Attributes:
        name: Its name on the command line.
        text: Its row in the table.
        happen: Brings it about and ends it.
        needs: What its stage must have.
        kills_workers: A worker dies: a body whose success was not yet recorded may run again.
        outage: The reason of the outage that workers must have reported: without it, the fault did not reach them.
    """

    name: str
    text: str
    happen: Callable[[Stage, random.Random], Awaitable[None]]
    needs: Needs = field(default_factory=Needs)
    kills_workers: bool = False
    outage: OutageReason | None = None


def _refusing(refusal: Refusal) -> Callable[[Stage, random.Random], Awaitable[None]]:
    async def happen(stage: Stage, _: random.Random) -> None:
        with stage.operator() as operator:
            operator.ping()  # connected, before connections may be refused
            block = refusal(operator, stage.valkey)
            await asyncio.to_thread(block.__enter__)
            await asyncio.sleep(SECONDS)
            await asyncio.to_thread(block.__exit__, None, None, None)

    return happen


async def _load_slowly(stage: Stage, chance: random.Random) -> None:
    """The server answers once in 1024 commands that it reads, so it gets many to read."""
    with stage.operator() as operator:
        pipe = operator.pipeline(transaction=False)
        for _turn in range(LOADED_COMMANDS):
            pipe.set("probe:loaded", "x", ex=3600)
        await asyncio.to_thread(pipe.execute)
    await _refusing(away)(stage, chance)


async def _stop_redis(stage: Stage, _: random.Random) -> None:
    os.kill(stage.valkey.pid, signal.SIGSTOP)
    await asyncio.sleep(SECONDS)
    os.kill(stage.valkey.pid, signal.SIGCONT)


async def _slow_network(stage: Stage, _: random.Random) -> None:
    stage.proxy.delay_seconds = 0.15
    await asyncio.sleep(SECONDS * 2)
    stage.proxy.delay_seconds = 0.0


async def _flush_scripts(stage: Stage, _: random.Random) -> None:
    with stage.operator() as operator:
        for _turn in range(int(SECONDS / 0.02)):
            operator.script_flush()
            await asyncio.sleep(0.02)


async def _refuse_connections(stage: Stage, _: random.Random) -> None:
    with stage.operator() as operator:
        before = operator.config_get("maxclients")["maxclients"]
        operator.config_set("maxclients", 2)
        for _turn in range(int(SECONDS / 0.5)):
            operator.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await asyncio.sleep(0.5)
        operator.config_set("maxclients", before)


async def _full_pool(_: Stage, __: random.Random) -> None:
    """The URL has limited the pool for the whole time."""


async def _kill_node(stage: Stage, _: random.Random) -> None:
    """Without one of its masters, a Cluster answers CLUSTERDOWN for every key."""
    node = stage.cluster.nodes[1]
    await asyncio.to_thread(node.kill)
    async with asyncio.timeout(NOTICE_SECONDS):
        while "cluster_state:ok" in str(stage.cluster.nodes[0].ask("CLUSTER", "INFO")):
            await asyncio.sleep(0.1)
    await asyncio.sleep(SECONDS * 2)
    await asyncio.to_thread(node.start)


async def _reshard(stage: Stage, _: random.Random) -> None:
    """All records are moved to other masters, and are in two places for some seconds: each script gets TRYAGAIN."""
    slots = [stage.cluster.nodes[0].ask("CLUSTER", "KEYSLOT", f"{{/{shard:x}}}") for shard in range(SHARDS)]
    move = stage.cluster.moving(slots)
    await asyncio.to_thread(move.__enter__)
    await asyncio.sleep(SECONDS)
    await asyncio.to_thread(move.__exit__, None, None, None)


async def _fail_over(stage: Stage, _: random.Random) -> None:
    await asyncio.to_thread(stage.watched.fail_over)


async def _kill_engine(stage: Stage, _: random.Random) -> None:
    await stage.restart_engine()


async def _kill_workers(stage: Stage, chance: random.Random) -> None:
    for _turn in range(3):
        victim = stage.workers.pop(chance.randrange(len(stage.workers)))
        await asyncio.to_thread(victim.kill)
        await stage.start_workers(1)


async def _stop_worker(stage: Stage, chance: random.Random) -> None:
    victim = chance.choice(stage.workers)
    os.killpg(victim.pid, signal.SIGSTOP)
    await asyncio.sleep(10.0)  # longer than Hatchet waits for a heartbeat
    os.killpg(victim.pid, signal.SIGCONT)


async def _damage_records(stage: Stage, chance: random.Random) -> None:
    """Flows of others are damaged, in every key they have, and the index that the reconciler reads."""
    with stage.operator() as operator:
        for _turn in range(20):
            chain = await stage.client.chain(["step", "step"], error="on_error")
            await stage.client.chain([chain, "step"]) if chance.random() < 0.3 else None
            await chain.aio_run_no_wait({"n": 0})
            for key in operator.keys(f"{chain.key}*"):
                if chance.random() < 0.7:
                    _damage(operator, key, chance)
        due = next(iter(operator.keys("mageflow:*due*")), None)
        if due is not None:
            operator.zadd(due, {b"\xff\xfe": 0, "x": 0, "mageflow:{": 0, "a:b:c:d#9": -1})


def _damage(operator: redis.Redis, key: bytes, chance: random.Random) -> None:
    kind, ttl = operator.type(key), operator.ttl(key)
    fields = operator.hkeys(key) if kind == b"hash" else []
    if fields and chance.random() < 0.7:
        operator.hset(key, chance.choice(fields), chance.choice(["{", b"\xff", "9" * 5000, "null", "-1", "[" * 900]))
    else:
        operator.delete(key)
        operator.set(key, "x")
    with contextlib.suppress(redis.RedisError):
        operator.expire(key, max(1, ttl))


_TEXTS: dict[str, tuple[str, OutageReason]] = {
    "full": ("Redis refuses: OOM", "full"),
    "forbidden": ("Redis refuses: NOPERM, for EVALSHA", "forbidden"),
    "forbidden_in_script": ("Redis refuses: NOPERM, for a command in a script", "forbidden"),
    "no_replicas": ("Redis refuses: NOREPLICAS", "no_replicas"),
    "read_only": ("Redis refuses: READONLY", "read_only"),
    "master_down": ("Redis refuses: MASTERDOWN", "master_down"),
    "disk": ("Redis refuses: MISCONF", "disk"),
    "busy": ("Redis refuses: BUSY", "busy"),
    "away": ("Redis is killed and starts again from its append-only file", "unreachable"),
}

FAULTS = (
    *(
        Fault(
            "kill-redis" if each is away else each.__name__.replace("_", "-"),
            _TEXTS[each.__name__][0],
            _refusing(each),
            outage=_TEXTS[each.__name__][1],
        )
        for each in REFUSALS
    ),
    Fault(
        "loading",
        "Redis refuses: LOADING, after a restart",
        _load_slowly,
        Needs({"key-load-delay": "150"}),
        outage="loading",
    ),
    Fault("stop-redis", "Redis is stopped (SIGSTOP) for some seconds", _stop_redis),
    Fault("latency", "each answer of Redis takes 0.3 s longer", _slow_network, Needs(is_proxied=True)),
    Fault("script-flush", "SCRIPT FLUSH, again and again", _flush_scripts),
    Fault("max-clients", "Redis takes no new connection and closes the others", _refuse_connections),
    Fault("full-pool", "the pool has 2 connections", _full_pool, Needs(parameters="?max_connections=2")),
    Fault("damaged-records", "records of 20 other flows are damaged", _damage_records),
    Fault(
        "fail-over", "a Sentinel makes the replica the master", _fail_over, Needs(is_watched=True), outage="unreachable"
    ),
    Fault(
        "cluster-down",
        "Redis refuses: CLUSTERDOWN, a master is away",
        _kill_node,
        Needs(is_cluster=True),
        outage="cluster_down",
    ),
    Fault(
        "reshard",
        "Redis refuses: TRYAGAIN, records of a Cluster move",
        _reshard,
        Needs(is_cluster=True),
        outage="try_again",
    ),
    Fault("kill-engine", "Hatchet is killed and starts again with nothing", _kill_engine, kills_workers=True),
    Fault("kill-worker", "a worker is killed, three times", _kill_workers, kills_workers=True),
    Fault("stop-worker", "a worker is stopped (SIGSTOP) for 10 s", _stop_worker, kills_workers=True),
)
