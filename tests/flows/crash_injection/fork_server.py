"""Starts workers by forking a process that has imported everything and opened nothing.

Importing the SDK takes seconds, forking milliseconds. Everything that must not exist at a fork (channels, threads,
event loops) is made after it. The SDK starts its listener in a process of its own; that process is forked too, before
the worker opens its first channel.

Commands arrive on standard input, and events leave on standard output, one JSON document per line. When a worker ends,
the rest of its process group is killed at once, as in a container.
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
from collections.abc import Callable
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
from tests.flows.crash_injection.kill_points import KillPoint, KillSwitch, Note
from tests.flows.crash_injection.tasks import Journal, declare
from tests.flows.crash_injection.verify import DEATHS_FILE, JOURNAL_FILE

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
EXIT_STATUS = 137
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
class WorkerSpec:
    """What a worker needs to start."""

    namespace: str
    url: str
    folder: str
    environment: dict[str, str]
    point: KillPoint | None = None

    @classmethod
    def parse(cls, document: dict[str, Any]) -> "WorkerSpec":
        point = document.pop("point", None)
        return cls(**document, point=KillPoint(**point) if point else None)


def run_worker(spec: WorkerSpec, events: int) -> None:
    """Run a worker until it dies; ``events`` is the pipe to the parent."""
    folder = Path(spec.folder)
    output = os.open(folder / f"{spec.namespace}.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(spec.environment)
    switch = KillSwitch(_exit_noting(folder / DEATHS_FILE))
    switch.method(SdkContext, "cancel_run", "Hatchet cancel_run")
    client = Mageflow(
        Hatchet(config=ClientConfig(namespace=spec.namespace)), spec.url, settings=SETTINGS, interceptors=[switch]
    )
    switch.method(client._flows._dispatcher, "cancel", "Hatchet cancel")
    switch.method(client._flows._dispatcher, "statuses", "Hatchet statuses")
    switch.method(client._flows._dispatcher, "was_replayed", "Hatchet events")
    switch.method(client._flows._dispatcher, "was_timed_out", "Hatchet events")
    switch.method(client._flows._dispatcher, "origin", "Hatchet events")
    tasks = declare(client, switch, Journal(folder / JOURNAL_FILE, spec.url))
    worker = client.worker(f"worker-{os.getpid()}", slots=20, workflows=tasks)
    switch.events(worker._event_queue, EVENTS)
    listener = _Listener(worker)

    def start_listener(**_: Any) -> Any:
        _emit(events, {"ready": os.getpid()})
        return listener.go()

    worker._start_action_listener = start_listener  # type: ignore[method-assign]
    setup_loop = worker._setup_loop

    def setup() -> None:
        setup_loop()
        assert worker._loop is not None
        switch.step_tasks(worker._loop)

    worker._setup_loop = setup  # type: ignore[method-assign]
    if spec.point:
        switch.arm(spec.point)
    worker.start()


def _exit_noting(path: Path) -> Callable[[Note], NoReturn]:
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def end(note: Note) -> NoReturn:
        _emit(file, {**note, "how": "os._exit"})
        os._exit(EXIT_STATUS)

    return end


def _emit(file: int, document: dict[str, Any]) -> None:
    os.write(file, json.dumps(document).encode() + b"\n")


class _Listener:
    """The SDK's listener, forked early, while nothing exists that a fork would break, and started later."""

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


def _fork(spec: WorkerSpec, events: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # no worker outlives the server
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        run_worker(spec, events)
    except BaseException:  # noqa: BLE001 - the child must not run code of the parent
        traceback.print_exc()
    finally:
        os._exit(1)


def _reap(workers: set[int], events: int) -> None:
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            if pid in workers:
                workers.remove(pid)
                with suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
                _emit(events, {"ended": pid, "status": os.waitstatus_to_exitcode(status)})


def main() -> NoReturn:
    """Fork workers until standard input ends."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)  # orphaned listeners are reaped here
    contexts = multiprocessing.get_context
    multiprocessing.get_context = lambda _method=None: contexts("fork")  # type: ignore[assignment]
    events = os.dup(1)
    os.dup2(2, 1)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    workers: set[int] = set()
    with suppress(BrokenPipeError):
        _serve(workers, reader, events)
    for pid in workers:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    os._exit(0)


def _serve(workers: set[int], children: int, events: int) -> None:
    rest = b""
    while True:
        ready, _, _ = select.select([0, children], [], [])
        if children in ready:
            os.read(children, 4096)
            _reap(workers, events)
        if 0 in ready:
            received = os.read(0, 65536)
            if not received:
                return
            *lines, rest = (rest + received).split(b"\n")
            for line in lines:
                spec = WorkerSpec.parse(json.loads(line))
                pid = _fork(spec, events)
                workers.add(pid)
                _emit(events, {"forked": pid, "namespace": spec.namespace})


START_SECONDS = 120.0
END_SECONDS = 60.0


class ForkedWorker:
    """One worker process, seen from the test.

    Attributes:
        ready: Set when it has declared its tasks.
        ended: Set when the process has ended.
        status: Its exit status then; negative for a signal.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.ready = asyncio.Event()
        self.ended = asyncio.Event()
        self.status: int | None = None

    def kill(self) -> None:
        """SIGKILL, as the kernel does when memory runs out."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


class ForkServer:
    """Starts workers in a server process; an asynchronous context manager.

    Args:
        url: URL of the Redis that the workers use.
        folder: Folder for their journal, their deaths and their output.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        self._folder = folder
        self._workers: dict[int, ForkedWorker] = {}
        self._requested: dict[str, asyncio.Future[ForkedWorker]] = {}

    async def __aenter__(self) -> Self:
        root = str(Path(__file__).parents[3])
        with (self._folder / "fork_server.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.flows.crash_injection.fork_server",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONPATH": root, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )
        self._reader = asyncio.create_task(self._read_events())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), END_SECONDS)
        finally:
            if self._process.returncode is None:
                os.killpg(self._process.pid, signal.SIGKILL)
                await self._process.wait()
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)

    async def start(self, engine: LocalEngine, namespace: str, point: KillPoint | None = None) -> ForkedWorker:
        """Start a worker; returns when it has declared its tasks, or has died before."""
        spec = asdict(WorkerSpec(namespace, self._url, str(self._folder), engine.environment(), point))
        assert self._process.stdin is not None
        requested = self._requested[namespace] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(json.dumps(spec).encode() + b"\n")
        await self._process.stdin.drain()
        done, _ = await asyncio.wait((requested, self._reader), timeout=START_SECONDS, return_when="FIRST_COMPLETED")
        assert requested in done, f"no worker was forked:\n{self._output()}"
        worker = requested.result()
        ready, ended = (asyncio.ensure_future(each.wait()) for each in (worker.ready, worker.ended))
        done, _ = await asyncio.wait((ready, ended), timeout=START_SECONDS, return_when="FIRST_COMPLETED")
        ready.cancel()
        ended.cancel()
        assert done, f"the worker {worker.pid} declares no task:\n{self._output()}"
        return worker

    def _output(self) -> str:
        return (self._folder / "fork_server.log").read_text(errors="replace")[-4000:]

    async def _read_events(self) -> None:
        assert self._process.stdout is not None
        # An event of a child can arrive before the event that it was forked.
        early: list[dict[str, Any]] = []
        async for line in self._process.stdout:
            event = json.loads(line)
            if "forked" in event:
                worker = self._workers[event["forked"]] = ForkedWorker(event["forked"])
                self._requested.pop(event["namespace"]).set_result(worker)
                early = [each for each in early if not self._note(each)]
            elif not self._note(event):
                early.append(event)

    def _note(self, event: dict[str, Any]) -> bool:
        worker = self._workers.get(event.get("ready", event.get("ended", 0)))
        if worker is None:
            return False
        if "ready" in event:
            worker.ready.set()
        else:
            worker.status = event["status"]
            worker.ended.set()
        return True


if __name__ == "__main__":
    main()
