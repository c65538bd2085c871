"""Where a worker's process dies: around every call to Redis and Hatchet, at every await point of mageflow's own code.

A plan names the n-th point of one kind. Points are counted from the moment the plan is armed, so the same plan dies in
the same place as long as the program takes the same way. What a worker does without being asked (looking whether
anything is due) counts twice at most, or it would drown the rest.
"""

import asyncio
import gc
import json
import os
import types
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import mageflow
from mageflow.interceptors import Attempt, Enqueue, Interceptor, RedisCall

PACKAGE = str(Path(mageflow.__file__).parent) + os.sep
EXIT_STATUS = 137
FOREIGN_ROOMS = ("locks/", "telemetry/", "cluster/")
TRANSPARENT = ("store/redis/", "interceptors/", "invocation/decorators")
BODY = ("invocation.runner.TaskRunner.function.<locals>.call_async",)
IDLE_POINTS = 2

Kind = Literal["call", "await"]


@dataclass(frozen=True)
class KillPoint:
    """Die at the n-th point of a kind."""

    kind: Kind
    at: int
    case: str


class Mortal(Interceptor):
    """Ends its process where the armed plan says so, and says first where that was."""

    def __init__(self, log: Path) -> None:
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._plan: KillPoint | None = None
        self._passed = 0
        self._idle: Counter[str] = Counter()

    def arm(self, plan: KillPoint) -> None:
        """From here on points count."""
        self._plan, self._passed = plan, 0
        self._idle.clear()

    def wants(self, kind: Kind) -> bool:
        """Whether points of this kind count now."""
        return self._plan is not None and self._plan.kind == kind

    def at(self, kind: Kind, when: str, place: str, *, idle: bool = False) -> None:
        """A point; the process may end here."""
        plan = self._plan
        if plan is None or plan.kind != kind:
            return
        if idle:
            self._idle[f"{when} {place}"] += 1
            if self._idle[f"{when} {place}"] > IDLE_POINTS:
                return
        self._passed += 1
        if self._passed == plan.at:
            note = {"case": plan.case, "kind": kind, "when": when, "place": place, "at": plan.at, "pid": os.getpid()}
            os.write(self._log, json.dumps(note).encode() + b"\n")
            os._exit(EXIT_STATUS)

    @contextmanager
    def around(self, place: str, *, idle: bool = False) -> Generator[None]:
        """Points before and after a call."""
        self.at("call", "before", place, idle=idle)
        yield
        self.at("call", "after", place, idle=idle)

    def redis(self, call: RedisCall) -> AbstractContextManager[None]:
        return (
            Interceptor.redis(self, call)
            if call.operation.startswith(("lock_", "lead", "census"))
            else self.around(f"Redis {call.operation}", idle=call.operation == "due")
        )

    def enqueue(self, call: Enqueue) -> AbstractContextManager[None]:
        return self.around("Hatchet dispatch")

    def execute(self, call: Attempt) -> AbstractContextManager[None]:
        return self.around("the body")

    def method(self, owner: Any, name: str, place: str) -> None:
        """Points before and after a coroutine method that no interceptor sees."""
        original: Callable[..., Awaitable[Any]] = getattr(owner, name)

        async def between(*args: Any, **kwargs: Any) -> Any:
            with self.around(place):
                return await original(*args, **kwargs)

        setattr(owner, name, between)

    def events(self, queue: Any, names: dict[Any, str]) -> None:
        """Points before and after each event that the worker hands to its listener, for Hatchet."""
        put = queue.put

        def between(event: Any, *args: Any, **kwargs: Any) -> None:
            kind = names.get(getattr(event, "type", None))
            if kind is None:
                put(event, *args, **kwargs)
                return
            with self.around(f"Hatchet event {kind}"):
                put(event, *args, **kwargs)

        queue.put = between

    def step_tasks(self, loop: asyncio.AbstractEventLoop) -> None:
        """Points at every suspension and every resumption of every task of a loop, where mageflow awaits."""
        loop.set_task_factory(
            lambda its, coroutine, **kwargs: asyncio.Task(Steps(coroutine, self), loop=its, **kwargs)  # type: ignore[arg-type]
        )


class Steps(Coroutine[Any, Any, Any]):
    """A coroutine, one step at a time."""

    def __init__(self, coroutine: Any, mortal: Mortal) -> None:
        self._coroutine = coroutine
        self._mortal = mortal
        self._place: Place | None = None

    def send(self, value: Any) -> Any:
        self._resumed()
        result = self._coroutine.send(value)
        self._suspended()
        return result

    def throw(self, *error: Any) -> Any:
        self._resumed()
        result = self._coroutine.throw(*error)
        self._suspended()
        return result

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        yield from self._coroutine.__await__()

    def _resumed(self) -> None:
        place, self._place = self._place, None
        if place is not None:
            self._mortal.at("await", "resumed in", place.name, idle=place.is_idle)

    def _suspended(self) -> None:
        if self._mortal.wants("await"):
            place = self._place = place_of(self._coroutine)
            if place is not None:
                self._mortal.at("await", "suspended in", place.name, idle=place.is_idle)


@dataclass(frozen=True)
class Place:
    """The innermost function of mageflow that awaits, beneath the plumbing."""

    name: str
    is_idle: bool


def place_of(coroutine: Any) -> Place | None:
    """Where mageflow is suspended; None when it is not mageflow, or none of its flows, that awaits."""
    found: list[str] = []
    inner: Any = coroutine
    while inner is not None:
        frame, following = _suspension(inner)
        if frame is not None and frame.f_code.co_filename.startswith(PACKAGE):
            module = frame.f_code.co_filename.removeprefix(PACKAGE).removesuffix(".py")
            found.append(f"{module}.{frame.f_code.co_qualname}")
        inner = following
    visible = [each for each in found if not each.startswith(TRANSPARENT) and not each.endswith("Store._call")]
    if not visible or any(each.startswith(FOREIGN_ROOMS) for each in visible):
        return None
    name = visible[-1].replace("/", ".")
    is_sweeping = any("Reconciler._sweep" in each for each in found) and not any("._visit" in each for each in found)
    is_idle = is_sweeping or name.endswith("Heartbeats.run")
    return Place("the body" if name in BODY else name, is_idle)


def _suspension(awaitable: Any) -> tuple[types.FrameType | None, Any]:
    """The frame of something that awaits, and what it awaits."""
    if isinstance(awaitable, types.CoroutineType):
        return awaitable.cr_frame, awaitable.cr_await
    if isinstance(awaitable, types.AsyncGeneratorType):
        return awaitable.ag_frame, awaitable.ag_await
    if isinstance(awaitable, types.GeneratorType):
        return awaitable.gi_frame, awaitable.gi_yieldfrom
    # A step of an asynchronous generator, or the iterator of a coroutine: they hold what they step.
    kinds = (types.CoroutineType, types.AsyncGeneratorType, types.GeneratorType)
    return None, next((each for each in gc.get_referents(awaitable) if isinstance(each, kinds)), None)
