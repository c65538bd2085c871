"""Runs that the code under test starts, and what a test leaves behind: read from the local engine and from Valkey."""

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, cast

from redis import Redis

from mageflow.testing.engine_api import RunningEngine, rows_of

__all__ = ["Leftovers", "StartedRun", "StartedRuns"]

_POLL_SECONDS = 0.05
_PAGE = 1000
_ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED"})
_LOCKS = re.compile(r":locks:v\d+:(locks|waits)$")
_UNFINISHED = re.compile(r":stats:(task|chain|swarm):(pending|active|suspended)$")


class _Valkey(Protocol):
    @property
    def url(self) -> str: ...


@dataclass(frozen=True, slots=True)
class StartedRun:
    """One run, as the engine has it.

    Args:
        id: Hatchet's id of the run.
        task: The name that was started: of a task or of a workflow, with the namespace if there is one.
        input: What was sent.
        status: ``QUEUED``, ``RUNNING``, ``COMPLETED``, ``FAILED`` or ``CANCELLED``.
        metadata: The additional metadata, with mageflow's own keys.
    """

    id: str
    task: str
    input: dict[str, Any]
    status: str
    metadata: dict[str, Any]


class StartedRuns:
    """The runs that the engine has accepted since this object was made, from any process.

    The fixture ``mageflow_runs`` makes one. Runs of flows, callbacks, crons and of the plain SDK are in it. A run
    counts when the engine has accepted it, before a worker takes it. As in Hatchet, a worker must have
    registered the task: a run of an unknown task is in no list.

    Args:
        engine: The `mageflow.engine.LocalEngine`.
    """

    def __init__(self, engine: RunningEngine) -> None:
        self._handshake = engine.handshake
        self._since = datetime.now(UTC)

    def all(self) -> list[StartedRun]:
        """Every run, the oldest first."""
        found: list[dict[str, Any]] = []
        while True:
            query = {
                "since": self._since.isoformat(),
                "include_payloads": "true",
                "limit": str(_PAGE),
                "offset": str(len(found)),
            }
            rows = rows_of(self._handshake, "/api/v1/stable/tenants/{tenant}/workflow-runs", query)
            found += rows
            if len(rows) < _PAGE:
                return [_run(row) for row in sorted(found, key=lambda row: str(row["createdAt"]))]

    def started(
        self,
        task: object,
        *,
        input: object = None,
        count: int | None = None,
        timeout_seconds: float = 10.0,
    ) -> list[StartedRun]:
        """Assert that runs of a task were started, and wait for them if they are not there yet. Blocks.

        Args:
            task: The task or workflow, or its name.
            input: Fields that the input of the run must have, with these values: a dictionary, a pydantic model or a
                dataclass. Other fields of the input are ignored. None accepts every input.
            count: How many there must be, exactly. None accepts one or more.
            timeout_seconds: The longest time to wait until there are that many.

        Returns:
            The runs that match, the oldest first.

        Raises:
            AssertionError: There were fewer after ``timeout_seconds``, or there are more. The message has the runs of
                the task with their inputs, or the tasks that were started.
        """
        name, wanted = _name(task), _fields(input)
        deadline = time.monotonic() + timeout_seconds
        while True:
            runs = self.all()
            matching = [run for run in runs if _is(run, name, wanted)]
            if len(matching) >= (1 if count is None else count):
                break
            if time.monotonic() > deadline:
                raise AssertionError(_message(runs, matching, name, wanted, count))
            time.sleep(_POLL_SECONDS)
        if count is not None and len(matching) != count:
            raise AssertionError(_message(runs, matching, name, wanted, count))
        return matching

    def not_started(self, task: object, *, input: object = None, within_seconds: float = 0.0) -> None:
        """Assert that no run of a task was started.

        Args:
            task: The task or workflow, or its name.
            input: As in `started`.
            within_seconds: How long to look. 0 looks once: use it where what could start the run has ended.

        Raises:
            AssertionError: There is one. The message has its input.
        """
        name, wanted = _name(task), _fields(input)
        deadline = time.monotonic() + within_seconds
        while True:
            runs = self.all()
            matching = [run for run in runs if _is(run, name, wanted)]
            if matching:
                raise AssertionError(_message(runs, matching, name, wanted, 0))
            if time.monotonic() >= deadline:
                return
            time.sleep(_POLL_SECONDS)


class Leftovers:
    """What a test leaves behind: runs that have not ended, locks that are held, unfinished flows, keys without a TTL.

    The fixture ``mageflow_leftovers`` makes one. Valkey must have been empty when the test began.

    Args:
        runs: The runs of the test.
        valkey: The server of the test.
    """

    def __init__(self, runs: StartedRuns, valkey: _Valkey) -> None:
        self._runs = runs
        self._valkey = valkey

    def find(self) -> list[str]:
        """One sentence for each thing. Empty if there is none."""
        found = [
            f"run {run.id} of {run.task} is {run.status}, input {run.input}"
            for run in self._runs.all()
            if run.status not in _ENDED
        ]
        with Redis.from_url(self._valkey.url, decode_responses=True) as redis:
            # redis-py types its replies as those of its two clients together
            client = cast("Any", redis)
            for key in sorted(cast("list[str]", list(client.scan_iter(count=_PAGE)))):
                if locks := _LOCKS.search(key):
                    word = "is held" if locks.group(1) == "locks" else "is waited for"
                    found += [f"lock {_lock(locks.group(1), each)} {word}" for each in client.hgetall(key).items()]
                elif unfinished := _UNFINISHED.search(key):
                    kind, status = unfinished.groups()
                    word = "signature" if kind == "task" else kind
                    found += [f"{word} {each} is {status}" for each in client.zrange(key, 0, -1)]
                if client.ttl(key) == -1:
                    found.append(f"key {key} has no TTL")
        return found

    def wait_for_none(self, timeout_seconds: float) -> list[str]:
        """Wait until nothing is left. Blocks.

        Args:
            timeout_seconds: The longest time to wait.

        Returns:
            What is left after that time, as from `find`. Empty as soon as there is nothing.
        """
        return _until_empty(self.find, time.monotonic() + timeout_seconds)


def _until_empty(find: Callable[[], list[str]], deadline: float) -> list[str]:
    while (found := find()) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    return found


def _lock(table: str, entry: tuple[str, str]) -> str:
    field, record = entry
    return repr(field if table == "locks" else json.loads(record).get("waiting_for", field))


def _run(row: Mapping[str, Any]) -> StartedRun:
    given: Any = row.get("input") or {}
    if not row.get("children") and isinstance(given, dict) and "input" in given and "triggers" in given:
        given = cast("dict[str, Any]", given)["input"]  # a run of one task has all that the task is given
    return StartedRun(
        str(row["workflowRunExternalId"]),
        str(row["workflowName"]),
        cast("dict[str, Any]", given),
        str(row["status"]),
        dict(row.get("additionalMetadata") or {}),
    )


def _name(task: object) -> str:
    return str(getattr(task, "name", task))


def _fields(given: Any) -> dict[str, Any]:
    if given is None:
        return {}
    if hasattr(given, "model_dump"):
        return cast("dict[str, Any]", given.model_dump(mode="json"))
    if is_dataclass(given) and not isinstance(given, type):
        return asdict(given)
    return dict(cast("Mapping[str, Any]", given))


def _is(run: StartedRun, name: str, wanted: Mapping[str, Any]) -> bool:
    return run.task.lower() == name.lower() and all(
        key in run.input and run.input[key] == value for key, value in wanted.items()
    )


def _message(
    runs: list[StartedRun], matching: list[StartedRun], name: str, wanted: Mapping[str, Any], count: int | None
) -> str:
    of_task = [run.input for run in runs if run.task.lower() == name.lower()]
    there = (
        f"its runs have the inputs {of_task}"
        if of_task
        else f"started: {sorted({run.task for run in runs})} (a task must be registered by a worker first)"
    )
    expected = "at least one" if count is None else str(count)
    return f"{len(matching)} runs of {name!r}{f' with {dict(wanted)}' if wanted else ''}, expected {expected}; {there}"
