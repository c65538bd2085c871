"""Where a fault happens: a Redis, a Hatchet and two workers in processes of their own, and a client."""

import asyncio
import os
import signal
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import redis
import redis.asyncio
import redis.asyncio.cluster

from mageflow import Mageflow
from mageflow.engine import LocalEngine
from mageflow.testing.ports import free_port
from mageflow.testing.valkey import EmbeddedValkey
from mageflow.testing.workers import WorkerProcess
from tests.chaos.worker import CLUSTER, SENTINEL, redis_client
from tests.flows.crash_injection.fork_server import SETTINGS
from tests.flows.crash_injection.processes import WORKER_LOST_AFTER
from tests.store.proxy import Proxy
from tests.store.topologies import ClusterOfThree, Watched, valkey_binary

ROOT = Path(__file__).parents[2]
BODY_SECONDS = 0.2
WORKERS = 2
START_SECONDS = 180.0  # on a busy machine
WORKER = "tests.chaos.worker"


@dataclass(frozen=True)
class Needs:
    """What a fault needs of its stage.

    Attributes:
        options: Options of the server.
        is_watched: A master, a replica and a Sentinel instead of one server.
        is_cluster: A Cluster of three masters instead of one server.
        is_proxied: The workers and the client are behind a proxy.
        parameters: Query of the URL of Redis, for redis-py.
    """

    options: dict[str, str] = field(default_factory=dict[str, str])
    is_watched: bool = False
    is_cluster: bool = False
    is_proxied: bool = False
    parameters: str = ""


class Stage:
    """Servers, workers and a client; an asynchronous context manager.

    Attributes:
        valkey: The one server, unless a Sentinel watches two.
        watched: The two servers and their Sentinel, if the fault needs them.
        cluster: The Cluster, if the fault needs one.
        proxy: The proxy, if the fault needs one.
        workers: The worker processes that should live.
        histories: Folders with the append-only files of what was written.
    """

    valkey: EmbeddedValkey
    watched: Watched
    cluster: ClusterOfThree
    histories: list[Path]
    proxy: Proxy

    def __init__(self, folder: Path, needs: Needs) -> None:
        self._folder = folder
        self._needs = needs
        self._stack = ExitStack()
        self._grpc_port, self._api_port = free_port(), free_port()
        self.workers: list[WorkerProcess] = []

    async def __aenter__(self) -> Self:
        with ExitStack() as starting:
            address = self._start_redis(starting)
            if self._needs.is_proxied:
                self.proxy = starting.enter_context(Proxy(self.valkey.port))
                address = f"redis://127.0.0.1:{self.proxy.port}/0"
            self._address = address + self._needs.parameters
            self._start_engine()
            starting.callback(lambda: self.engine.__exit__(None, None, None))
            await self.start_workers(WORKERS)
            self._stack = starting.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        with self._stack:
            await asyncio.gather(*(asyncio.to_thread(each.kill) for each in self.workers))

    def _start_redis(self, starting: ExitStack) -> str:
        if self._needs.is_cluster:
            self.cluster = starting.enter_context(ClusterOfThree(valkey_binary(), node_timeout_ms=3000))
            for server in self.cluster.nodes:
                server.ask("CONFIG", "SET", "appendonly", "yes")
                server.ask("CONFIG", "REWRITE")
            self.histories = [each.directory for each in self.cluster.nodes]
            return f"{CLUSTER}{self.cluster.nodes[0].port}"
        if self._needs.is_watched:
            self.watched = starting.enter_context(Watched(valkey_binary()))
            for server in (self.watched.master, self.watched.replica):
                server.ask("CONFIG", "SET", "appendonly", "yes")
            self.histories = [self.watched.replica.directory]
            return f"{SENTINEL}{self.watched.sentinel.port}/{self.watched.name}"
        self.histories = [self._folder]
        options = {"dir": str(self._folder), "auto-aof-rewrite-percentage": "0", **self._needs.options}
        self.valkey = starting.enter_context(EmbeddedValkey(append_only=True, options=options))
        return self.valkey.url

    def _start_engine(self) -> None:
        self.engine = LocalEngine(
            worker_lost_after=WORKER_LOST_AFTER, grpc_port=self._grpc_port, api_port=self._api_port
        )
        self.engine.__enter__()
        self.client = Mageflow(self.engine.client(), redis_client(self._address), settings=SETTINGS)

    async def start_workers(self, count: int) -> None:
        """Start workers beside those that run."""
        started = [
            WorkerProcess(
                self.engine,
                WORKER,
                self._address,
                str(self._folder),
                str(BODY_SECONDS),
                output=self._folder / f"worker{len(self.workers) + number}.log",
                environment={"PYTHONPATH": str(ROOT)},
            )
            for number in range(count)
        ]
        await asyncio.gather(*(each.aio_start(START_SECONDS) for each in started))
        self.workers += started

    async def restart_engine(self) -> None:
        """SIGKILL the engine; start it on the same ports with nothing in it, and the workers with it."""
        os.kill(self.engine.pid, signal.SIGKILL)
        await asyncio.sleep(2.0)
        await asyncio.gather(*(asyncio.to_thread(each.kill) for each in self.workers))
        self.engine.__exit__(None, None, None)
        count = len(self.workers)
        self._start_engine()
        self.workers.clear()
        await self.start_workers(count)

    def operator(self) -> redis.Redis:
        """The operator's connection to the one server."""
        return redis.Redis.from_url(self.valkey.url, retry=None)

    def reader(self) -> Any:
        """A connection to look at the flows."""
        if self._needs.is_cluster:
            return redis.asyncio.cluster.RedisCluster.from_url(self.cluster.url, decode_responses=True)
        if self._needs.is_watched:
            return redis.asyncio.Redis.from_url(self.watched.replica.url, decode_responses=True)
        return redis.asyncio.Redis.from_url(self.valkey.url, decode_responses=True)
