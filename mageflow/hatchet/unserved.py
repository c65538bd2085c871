"""Notices at the sender that a run does not start because no worker serves it, or because Hatchet is away.

Hatchet accepts such a run without a word, and the caller waits until the schedule timeout. The first run of each task
is looked up some seconds after it was sent, in a thread of its own. The sender only notes it.
"""

import atexit
import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from hatchet_sdk.clients.rest.api.workflow_runs_api import WorkflowRunsApi
from hatchet_sdk.clients.rest.exceptions import NotFoundException
from hatchet_sdk.clients.rest.models.v1_task_status import V1TaskStatus
from hatchet_sdk.clients.rest.models.worker import Worker

from mageflow.did_you_mean import hint
from mageflow.forks import when_forked
from mageflow.hatchet.rest_limit import bounded
from mageflow.interceptors import EnqueueItem, Interceptor, RunUnserved

if TYPE_CHECKING:
    from hatchet_sdk.config import ClientConfig
    from hatchet_sdk.features.runs import RunsClient
    from hatchet_sdk.features.workers import WorkersClient

__all__ = ["UnservedWatch"]

_AGAIN_SECONDS: Final = 60.0
_MOST_TASKS: Final = 256
_MOST_WORKERS: Final = 20
_MOST_NAMES: Final = 3
_CONNECT_SECONDS: Final = 2.0
_END_SECONDS: Final = 2.0

_log = logging.getLogger("mageflow.hatchet")


class UnservedWatch:
    """Looks up one run of each task at most once a minute, and reports each task at most once.

    It knows at most 256 tasks; runs of further tasks are not looked up. Its thread ends when nothing is left to do, and
    with the program: the program ends at once, or after the look that is on its way, for which it waits 2 s at most.

    Args:
        config: Has the address of Hatchet and the namespace.
        runs: Reads the state of a run.
        workers: Lists the workers.
        interceptor: Gets a `RunUnserved`.
        delay_seconds: How long after it was sent a run is looked up. 0 turns the watch off.
        declared: The names that this client has declared. One of them, or one that a worker serves, may be meant.
    """

    def __init__(
        self,
        config: "ClientConfig",
        runs: "RunsClient",
        workers: "WorkersClient",
        interceptor: Interceptor,
        delay_seconds: float,
        declared: Callable[[], Iterable[str]],
    ) -> None:
        self._config = config
        self._runs = bounded(runs)
        self._workers = bounded(workers)
        self._interceptor = interceptor
        self._delay_seconds = delay_seconds
        self._declared = declared
        self._next: dict[str, float] = {}
        self._reported: set[str] = set()
        self._noted: deque[tuple[float, EnqueueItem]] = deque()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_ending = threading.Event()
        self._of_parents: list[object] = []
        when_forked(self._begin_in_child)

    def note(self, items: Iterable[EnqueueItem]) -> None:
        """Note runs that are about to be sent. Waits for nothing, and raises nothing if no thread can be started."""
        if not self._delay_seconds:
            return
        now = time.monotonic()
        for item in items:
            known = self._next.get(item.task)
            if known is not None and now < known:
                continue
            if known is None and len(self._next) >= _MOST_TASKS:
                continue
            self._next[item.task] = now + _AGAIN_SECONDS
            if item.task not in self._reported:
                self._look_up_later(item, now + self._delay_seconds)

    def _look_up_later(self, item: EnqueueItem, due: float) -> None:
        with self._lock:
            if len(self._noted) >= _MOST_TASKS:
                return  # Hatchet answers slowly, or not at all
            self._noted.append((due, item))
            if self._thread is None:
                # A daemon: a program that has sent its runs may end at once.
                thread = threading.Thread(target=self._run, name="mageflow-unserved", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:  # the process has too many threads, or the interpreter ends
                    self._noted.clear()
                    _log.debug("the run of %s is not looked up: %s", item.task, error)
                    return
                self._thread = thread
                atexit.register(self._end)

    def _begin_in_child(self) -> None:
        """Start anew in this forked process: the thread of the parent does not run here, and looks up its own runs."""
        self._of_parents.append((self._thread, self._noted))
        self._thread, self._noted = None, deque()
        self._lock, self._is_ending = threading.Lock(), threading.Event()

    def _end(self) -> None:
        """Let no look go on while the interpreter takes itself apart.

        Python ends a daemon thread there by unwinding its stack. The SDK makes its REST calls inside a function of
        pydantic, whose stack frames cannot be unwound: the process would abort with SIGABRT after all its work.
        """
        self._is_ending.set()
        thread = self._thread
        if thread is not None:
            thread.join(_END_SECONDS)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._noted:
                    self._thread = None
                    atexit.unregister(self._end)
                    return
                due, item = self._noted.popleft()
            if self._is_ending.wait(max(due - time.monotonic(), 0.0)):
                return
            try:
                found = self._why_waiting(item)
            except Exception as error:  # noqa: BLE001 - a look that fails must not disturb the program
                _log.debug("the run of %s was not looked up: %s", item.task, error)
                continue
            if found is not None:
                self._reported.add(item.task)
                self._interceptor.event(found)

    def _why_waiting(self, item: EnqueueItem) -> RunUnserved | None:
        address = self._config.host_port
        if not item.run_id:
            if _is_listening(address):
                return None
            return RunUnserved(
                item.task,
                "unreachable",
                f"Hatchet does not answer at {address}: check that it runs, and HATCHET_CLIENT_HOST_PORT or the token. "
                "On this machine: mageflow engine --redis, then mageflow run -- python PROGRAM.py",
            )
        rows = self._workers.list().rows or []
        active = [row for row in rows if row.status == "ACTIVE"]
        if len(active) > _MOST_WORKERS or any(self._serves(row, item.task) for row in active):
            return None
        status = self._status(item.run_id)
        if status not in {V1TaskStatus.QUEUED, None}:
            return None
        waits = (
            "so the run waits"
            if status
            else "and Hatchet drops a run of a task that none has registered: send it again"
        )
        if active:
            names = ", ".join(sorted({row.name for row in active})[:_MOST_NAMES])
            return RunUnserved(
                item.task,
                "not_served",
                f"no connected worker serves this task (connected: {names}), {waits}. Add it to the workflows of a "
                "worker and start that worker again, or check the spelling and HATCHET_CLIENT_NAMESPACE"
                f"{self._meant(item.task, active)}",
                item.run_id,
            )
        paused = sum(row.status == "PAUSED" for row in rows)
        connected = f"the connected workers ({paused}) are paused" if paused else "no worker is connected to Hatchet"
        return RunUnserved(
            item.task,
            "no_worker",
            f"{connected}, {waits}. Start the worker that has this task, with its own program or with "
            f"mageflow worker MODULE, with the same token and namespace{self._meant(item.task, rows)}",
            item.run_id,
        )

    def _meant(self, task: str, workers: Iterable[Worker]) -> str:
        """The near name for a task that this client has not declared; nothing for one that it has."""
        declared = set(self._declared())
        if task in declared:
            return ""
        served = {name.removeprefix(self._config.namespace) for each in workers for name in _served_by(each)}
        return hint(task, (), sorted(declared | (served - {name.lower() for name in declared})))

    def _status(self, run_id: str) -> V1TaskStatus | None:
        """The status of a run; None for one of a workflow that no worker has ever registered."""
        with self._runs.client() as client:
            try:
                # Without the SDK's retries: it repeats a 404 for half a minute.
                return WorkflowRunsApi(client).v1_workflow_run_get_status(run_id)
            except NotFoundException:
                return None

    def _serves(self, worker: Worker, task: str) -> bool:
        """Whether the worker runs the task. A worker of which Hatchet does not say what it runs may do so."""
        name = self._config.apply_namespace(task).lower()
        served = list(_served_by(worker)) or list(_served_by(self._workers.get(worker.metadata.id)))
        return not served or name in served


def _served_by(worker: Worker) -> Iterator[str]:
    """The workflows that a worker runs, in lower case: Hatchet's list of workers may leave them out."""
    for action in worker.actions or ():
        yield action.rpartition(":")[0].lower()
    workflows: list[Any] = list(worker.registered_workflows or ())
    for workflow in workflows:
        yield str(workflow.name).lower()


def _is_listening(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS):
            return True
    except (OSError, ValueError):
        return False
