"""Kill points: before and after every call to Redis and Hatchet, inside task functions, and at every await point.

A `KillPoint` names the n-th point of one kind. Points are counted from the moment the switch is armed, so the same
point is at the same place as long as the program takes the same path. Points of idle work (looking for due records)
count twice at most, because they would outnumber the rest.
"""

import asyncio
import gc
import os
import types
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import mageflow
from mageflow.interceptors import Attempt, Enqueue, Interceptor, RedisCall

PACKAGE = str(Path(mageflow.__file__).parent) + os.sep
FOREIGN_PACKAGES = ("locks/", "telemetry/", "cluster/")
TRANSPARENT = ("store/redis/", "interceptors/", "invocation/decorators")
BODY = ("invocation.runner.TaskRunner.function.<locals>.call_async",)
IDLE_POINTS = 2

Kind = Literal["call", "await"]


Note = dict[str, Any]
"""Where a worker died: the case, the kind and number of the point, when and in which place."""


@dataclass(frozen=True)
class KillPoint:
    """The n-th point of a kind, from 1."""

    kind: Kind
    number: int
    case: str


class KillSwitch(Interceptor):
    """Ends the worker at the armed kill point.

    Args:
        end: Ends the worker and does not return; is given a note of the place.
    """

    def __init__(self, end: Callable[[Note], NoReturn]) -> None:
        self._end = end
        self._point: KillPoint | None = None
        self._passed = 0
        self._idle: Counter[str] = Counter()

    def arm(self, point: KillPoint) -> None:
        """Count points from here on."""
        self._point, self._passed = point, 0
        self._idle.clear()

    def counts(self, kind: Kind) -> bool:
        """True if points of this kind count now."""
        return self._point is not None and self._point.kind == kind

    def reach(self, kind: Kind, when: str, place: str, *, idle: bool = False) -> None:
        """A point is reached; the worker may end here."""
        point = self._point
        if point is None or point.kind != kind:
            return
        if idle:
            self._idle[f"{when} {place}"] += 1
            if self._idle[f"{when} {place}"] > IDLE_POINTS:
                return
        self._passed += 1
        if self._passed == point.number:
            self._end({"case": point.case, "kind": kind, "when": when, "place": place, "number": point.number})

    @contextmanager
    def around(self, place: str, *, idle: bool = False) -> Generator[None]:
        """Points before and after a call."""
        self.reach("call", "before", place, idle=idle)
        yield
        self.reach("call", "after", place, idle=idle)

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
        """Add points before and after a coroutine method that no interceptor wraps."""
        original: Callable[..., Awaitable[Any]] = getattr(owner, name)

        async def between(*args: Any, **kwargs: Any) -> Any:
            with self.around(place):
                return await original(*args, **kwargs)

        setattr(owner, name, between)

    def events(self, queue: Any, names: dict[Any, str]) -> None:
        """Add points before and after each event that the worker gives to its listener, for Hatchet."""
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
        """Add points at every suspension and resumption of the tasks of a loop, where mageflow awaits."""
        loop.set_task_factory(
            lambda its, coroutine, **kwargs: asyncio.Task(Steps(coroutine, self), loop=its, **kwargs)  # type: ignore[arg-type]
        )


class Steps(Coroutine[Any, Any, Any]):
    """A coroutine whose every step is a kill point."""

    def __init__(self, coroutine: Any, switch: KillSwitch) -> None:
        self._coroutine = coroutine
        self._switch = switch
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
            self._switch.reach("await", "resumed in", place.name, idle=place.is_idle)

    def _suspended(self) -> None:
        if self._switch.counts("await"):
            place = self._place = place_of(self._coroutine)
            if place is not None:
                self._switch.reach("await", "suspended in", place.name, idle=place.is_idle)


@dataclass(frozen=True)
class Place:
    """The innermost function of mageflow that awaits, without the functions that only pass calls on."""

    name: str
    is_idle: bool


def place_of(coroutine: Any) -> Place | None:
    """Where mageflow is suspended; None if other code awaits, or a package that has nothing to do with flows."""
    found: list[str] = []
    inner: Any = coroutine
    while inner is not None:
        frame, following = _suspension(inner)
        if frame is not None and frame.f_code.co_filename.startswith(PACKAGE):
            module = frame.f_code.co_filename.removeprefix(PACKAGE).removesuffix(".py")
            found.append(f"{module}.{frame.f_code.co_qualname}")
        inner = following
    visible = [each for each in found if not each.startswith(TRANSPARENT) and not each.endswith("Store._call")]
    if not visible or any(each.startswith(FOREIGN_PACKAGES) for each in visible):
        return None
    name = visible[-1].replace("/", ".")
    is_sweeping = any("Reconciler._sweep" in each for each in found) and not any("._visit" in each for each in found)
    is_idle = is_sweeping or name.endswith("Heartbeats.run")
    return Place("the body" if name in BODY else name, is_idle)


def _suspension(awaitable: Any) -> tuple[types.FrameType | None, Any]:
    """The frame of an awaitable, and what it awaits."""
    if isinstance(awaitable, types.CoroutineType):
        return awaitable.cr_frame, awaitable.cr_await
    if isinstance(awaitable, types.AsyncGeneratorType):
        return awaitable.ag_frame, awaitable.ag_await
    if isinstance(awaitable, types.GeneratorType):
        return awaitable.gi_frame, awaitable.gi_yieldfrom
    # A step of an asynchronous generator, or the iterator of a coroutine: it refers to what it steps.
    kinds = (types.CoroutineType, types.AsyncGeneratorType, types.GeneratorType)
    return None, next((each for each in gc.get_referents(awaitable) if isinstance(each, kinds)), None)
