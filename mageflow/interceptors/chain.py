"""`InterceptorChain`: several interceptors as one, isolated from the operation and from each other.

The chain looks up once, when it is made, which interceptor overrides which method. A method that no interceptor
overrides costs as much as on a plain `Interceptor`. The chain forwards every method of `Interceptor` without naming it,
so a new wrap is one new method there.

An interceptor observes. When it raises an `Exception`, the chain logs it, sends `InterceptorFailed` to the others and
goes on: the operation neither fails nor changes its result. An interceptor cannot swallow the operation's exception
either. `BaseException` that is no `Exception` (cancellation, ``SystemExit``) is not caught.
"""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial
from types import TracebackType
from typing import Any, Final, NamedTuple

from mageflow.interceptors.clients import WorkerInfo
from mageflow.interceptors.events import Event, InterceptorFailed
from mageflow.interceptors.interceptor import AsyncWrap, Interceptor

__all__ = ["InterceptorChain"]

_WRAPS: Final = tuple(
    name for name in vars(Interceptor) if not name.startswith("_") and name not in {"worker", "event"}
)
_LOG_EVERY_SECONDS: Final = 60.0

_log = logging.getLogger("mageflow.interceptors")


class _Hook(NamedTuple):
    """One method of one interceptor that overrides the method of `Interceptor`."""

    method: Callable[[Any], Any]
    failed: Callable[[Exception], None]
    site: str


class InterceptorChain(Interceptor):
    """Several interceptors as one; the first is outermost.

    Args:
        interceptors: In the order in which they are entered. They get events in the same order.
    """

    def __init__(self, interceptors: Sequence[Interceptor] = ()) -> None:
        self._interceptors = tuple(interceptors)
        self._logged_at: dict[str, float] = {}
        self._events = self._overriding("event")
        self._workers = self._overriding("worker")
        for name in _WRAPS:
            if hooks := self._overriding(name):
                setattr(self, name, partial(_Wrap, hooks[0]) if len(hooks) == 1 else partial(_Wraps, hooks))

    def worker(self, call: WorkerInfo) -> AsyncWrap:
        """Wrap the life of one worker with all interceptors."""
        return _AsyncWraps(self._workers, call)

    def event(self, event: Event) -> None:
        """Hand one event to all interceptors."""
        for hook in self._events:
            try:
                hook.method(event)
            except Exception as error:  # noqa: BLE001 - see the module
                if isinstance(event, InterceptorFailed):
                    self._log(hook.site, error)  # a further event could fail in the same way, without end
                else:
                    hook.failed(error)

    def _overriding(self, name: str) -> tuple[_Hook, ...]:
        default = getattr(Interceptor, name)
        found = [(each, getattr(each, name)) for each in self._interceptors]
        return tuple(
            _Hook(method, partial(self._failed, type(each).__name__, name), f"{type(each).__name__}.{name}")
            for each, method in found
            if getattr(method, "__func__", method) is not default
        )

    def _failed(self, interceptor: str, hook: str, error: Exception) -> None:
        self._log(f"{interceptor}.{hook}", error)
        self.event(InterceptorFailed(interceptor, hook, error))

    def _log(self, site: str, error: Exception) -> None:
        now = time.monotonic()
        if now - self._logged_at.get(site, -_LOG_EVERY_SECONDS) >= _LOG_EVERY_SECONDS:
            self._logged_at[site] = now
            _log.error("%s raised and was ignored", site, exc_info=error)


class _Wrap:
    """As `_Wraps`, for one interceptor: most clients have only mageflow's own."""

    __slots__ = ("_call", "_hook", "_wrap")

    def __init__(self, hook: _Hook, call: object) -> None:
        self._hook = hook
        self._call = call
        self._wrap: AbstractContextManager[object] | None = None

    def __enter__(self) -> None:
        try:
            wrap = self._hook.method(self._call)
            wrap.__enter__()
        except Exception as error:  # noqa: BLE001 - see the module
            self._hook.failed(error)
        else:
            self._wrap = wrap

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        wrap, self._wrap = self._wrap, None
        if wrap is not None:
            try:
                wrap.__exit__(kind, error, traceback)
            except Exception as failure:  # noqa: BLE001 - see the module
                if failure is not error:
                    self._hook.failed(failure)


class _Wraps:
    """The wraps of several interceptors around one operation.

    Written out, because it runs around every operation: an `ExitStack` in a generator takes several times as long.
    """

    __slots__ = ("_call", "_entered", "_hooks")

    def __init__(self, hooks: tuple[_Hook, ...], call: object) -> None:
        self._hooks = hooks
        self._call = call
        self._entered: list[tuple[_Hook, AbstractContextManager[object]]] = []

    def __enter__(self) -> None:
        for hook in self._hooks:
            try:
                wrap = hook.method(self._call)
                wrap.__enter__()
            except Exception as error:  # noqa: BLE001 - see the module
                hook.failed(error)
            except BaseException as error:
                self.__exit__(type(error), error, error.__traceback__)
                raise
            else:
                self._entered.append((hook, wrap))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        entered = self._entered
        while entered:
            hook, wrap = entered.pop()
            try:
                wrap.__exit__(kind, error, traceback)
            except Exception as failure:  # noqa: BLE001 - see the module
                if failure is not error:
                    hook.failed(failure)
            except BaseException:
                self.__exit__(kind, error, traceback)
                raise


class _AsyncWraps:
    """As `_Wraps`, for asynchronous wraps."""

    __slots__ = ("_call", "_entered", "_hooks")

    def __init__(self, hooks: tuple[_Hook, ...], call: object) -> None:
        self._hooks = hooks
        self._call = call
        self._entered: list[tuple[_Hook, AbstractAsyncContextManager[object]]] = []

    async def __aenter__(self) -> None:
        for hook in self._hooks:
            try:
                wrap = hook.method(self._call)
                await wrap.__aenter__()
            except Exception as error:  # noqa: BLE001 - see the module
                hook.failed(error)
            except BaseException as error:
                await self.__aexit__(type(error), error, error.__traceback__)
                raise
            else:
                self._entered.append((hook, wrap))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        entered = self._entered
        while entered:
            hook, wrap = entered.pop()
            try:
                await wrap.__aexit__(kind, error, traceback)
            except Exception as failure:  # noqa: BLE001 - see the module
                if failure is not error:
                    hook.failed(failure)
            except BaseException:
                await self.__aexit__(kind, error, traceback)
                raise
