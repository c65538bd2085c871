"""A process that has imported everything and opened nothing, and forks a worker whenever it is asked for one.

Importing the SDK costs seconds, forking milliseconds. Everything that must not be there at a fork (channels, threads,
event loops) is made after it: the SDK's own worker, with its own listener in a process of its own. That listener is
forked as well, before the worker opens its first channel, instead of being started from nothing.

Commands come in on standard input and news go out on standard output, one JSON document a line. When a worker ends,
however it ends, what is left of its process group is killed at once, as a container would do with it.
"""

import asyncio
import ctypes
import json
import multiprocessing
import os
import select
import signal
import sys
import traceback
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn, Self

from hatchet_sdk import ClientConfig, Hatchet
from hatchet_sdk.contracts.dispatcher_pb2 import (
    STEP_EVENT_TYPE_COMPLETED,
    STEP_EVENT_TYPE_FAILED,
    STEP_EVENT_TYPE_STARTED,
)
from hatchet_sdk.worker.action_listener_process import worker_action_listener_process

from mageflow import Mageflow, Settings
from mageflow.engine import LocalEngine
from mageflow.hatchet.compat import SdkContext
from tests.flows.mortality.kill_points import KillPoint, Mortal
from tests.flows.mortality.tasks import Journal, declare

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
EVENTS = {
    STEP_EVENT_TYPE_STARTED: "started",
    STEP_EVENT_TYPE_COMPLETED: "completed",
    STEP_EVENT_TYPE_FAILED: "failed",
}
SETTINGS = Settings(
    metrics=False,
    cluster_view="off",
    reconcile_grace_seconds=1.0,
    reconcile_check_seconds=1.0,
    reconcile_interval_seconds=0.3,
)


@dataclass(frozen=True)
class Birth:
    """What a worker is told before it lives."""

    lane: str
    url: str
    folder: str
    environment: dict[str, str]
    plan: KillPoint | None = None

    @classmethod
    def parse(cls, document: dict[str, Any]) -> "Birth":
        plan = document.pop("plan", None)
        return cls(**document, plan=KillPoint(**plan) if plan else None)


def live(birth: Birth, news: int) -> None:
    """Be a worker until death."""
    folder = Path(birth.folder)
    output = os.open(folder / f"{birth.lane}.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(birth.environment)
    mortal = Mortal(folder / "deaths.jsonl")
    mortal.method(SdkContext, "cancel_run", "Hatchet cancel_run")
    client = Mageflow(
        Hatchet(config=ClientConfig(namespace=birth.lane)), birth.url, settings=SETTINGS, interceptors=[mortal]
    )
    mortal.method(client._flows._dispatcher, "cancel", "Hatchet cancel")
    mortal.method(client._flows._dispatcher, "statuses", "Hatchet statuses")
    mortal.method(client._flows._dispatcher, "was_replayed", "Hatchet events")
    mortal.method(client._flows._dispatcher, "was_timed_out", "Hatchet events")
    tasks = declare(client, mortal, Journal(folder / "journal.jsonl", birth.url))
    worker = client.worker(f"worker-{os.getpid()}", slots=20, workflows=tasks)
    mortal.events(worker._event_queue, EVENTS)
    listener = _Listener(worker)

    def start_listener(**_: Any) -> Any:
        os.write(news, json.dumps({"up": os.getpid()}).encode() + b"\n")
        return listener.go()

    worker._start_action_listener = start_listener  # type: ignore[method-assign]
    setup_loop = worker._setup_loop

    def setup() -> None:
        setup_loop()
        assert worker._loop is not None
        mortal.step_tasks(worker._loop)

    worker._setup_loop = setup  # type: ignore[method-assign]
    if birth.plan:
        mortal.arm(birth.plan)
    worker.start()


class _Listener:
    """The SDK's listener, forked while there is nothing yet that a fork would break, and told later to begin."""

    def __init__(self, worker: Any) -> None:
        self._go = os.pipe()
        actions = [each._create_action_name(task) for each in worker._workflows for task in each.tasks]
        self._process = worker._ctx.Process(
            target=_listen,
            args=(
                self._go,
                worker.name,
                actions,
                worker._slot_config,
                worker._config,
                worker._action_queue,
                worker._event_queue,
                worker._handle_kill,
                worker._client.debug,
                worker._labels,
                worker._worker_id_queue,
                worker._stop_listener_event,
                worker._shared_slot_usage_by_pool,
            ),
        )
        self._process.start()
        os.close(self._go[0])

    def go(self) -> Any:
        os.write(self._go[1], b"!")
        return self._process


def _listen(go: tuple[int, int], *args: Any) -> None:
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.close(go[1])
    if os.read(go[0], 1):
        worker_action_listener_process(*args)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value)


def _fork(birth: Birth, news: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # nobody survives the zygote
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        live(birth, news)
    except BaseException:  # noqa: BLE001 - nothing of the parent may go on in here
        traceback.print_exc()
    finally:
        os._exit(1)


def _reap(workers: set[int], news: int) -> None:
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            if pid in workers:
                workers.remove(pid)
                with suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
                note = {"dead": pid, "status": os.waitstatus_to_exitcode(status)}
                os.write(news, json.dumps(note).encode() + b"\n")


def main() -> NoReturn:
    """Fork until standard input ends, or whoever asks is gone."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)  # orphaned listeners come to us instead of staying zombies
    contexts = multiprocessing.get_context
    multiprocessing.get_context = lambda _method=None: contexts("fork")  # type: ignore[assignment]
    news = os.dup(1)
    os.dup2(2, 1)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    workers: set[int] = set()
    with suppress(BrokenPipeError):
        _serve(workers, reader, news)
    for pid in workers:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    os._exit(0)


def _serve(workers: set[int], children: int, news: int) -> None:
    rest = b""
    while True:
        ready, _, _ = select.select([0, children], [], [])
        if children in ready:
            os.read(children, 4096)
            _reap(workers, news)
        if 0 in ready:
            received = os.read(0, 65536)
            if not received:
                return
            *lines, rest = (rest + received).split(b"\n")
            for line in lines:
                birth = Birth.parse(json.loads(line))
                pid = _fork(birth, news)
                workers.add(pid)
                os.write(news, json.dumps({"born": pid, "lane": birth.lane}).encode() + b"\n")


class Life:
    """One worker, seen from outside."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.up = asyncio.Event()
        self.ended = asyncio.Event()
        self.status: int | None = None

    def kill(self) -> None:
        """SIGKILL, as the kernel does when memory runs out."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


class Nursery:
    """Starts workers through a zygote; an asynchronous context manager.

    Args:
        url: Of the Redis that workers use.
        folder: Where they write what happened, and their output.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        self._folder = folder
        self._lives: dict[int, Life] = {}
        self._wanted: dict[str, asyncio.Future[Life]] = {}

    async def __aenter__(self) -> Self:
        root = str(Path(__file__).parents[3])
        with (self._folder / "zygote.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.flows.mortality.fork_server",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONPATH": root, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)

    async def born(self, engine: LocalEngine, lane: str, plan: KillPoint | None = None) -> Life:
        """A new worker of a lane (a namespace), when it has declared its tasks, or has died before that."""
        birth = asdict(Birth(lane, self._url, str(self._folder), engine.environment(), plan))
        assert self._process.stdin is not None
        wanted = self._wanted[lane] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(json.dumps(birth).encode() + b"\n")
        await self._process.stdin.drain()
        life = await wanted
        up, ended = (asyncio.ensure_future(each.wait()) for each in (life.up, life.ended))
        await asyncio.wait((up, ended), return_when=asyncio.FIRST_COMPLETED)
        up.cancel()
        ended.cancel()
        return life

    async def _read(self) -> None:
        assert self._process.stdout is not None
        # What a child says may arrive before the word that it was born.
        early: list[dict[str, Any]] = []
        async for line in self._process.stdout:
            news = json.loads(line)
            if "born" in news:
                life = self._lives[news["born"]] = Life(news["born"])
                self._wanted.pop(news["lane"]).set_result(life)
                for each in early:
                    self._tell(each)
                early = [each for each in early if each.get("up", each.get("dead")) not in self._lives]
            elif not self._tell(news):
                early.append(news)

    def _tell(self, news: dict[str, Any]) -> bool:
        life = self._lives.get(news.get("up", news.get("dead", 0)))
        if life is None:
            return False
        if "up" in news:
            life.up.set()
        else:
            life.status = news["status"]
            life.ended.set()
        return True


if __name__ == "__main__":
    main()
