"""Several interceptors as one: order, isolation, and what a method that is not overridden costs."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from typing import Any

import pytest

from mageflow.interceptors import (
    AsyncWrap,
    Event,
    Interceptor,
    InterceptorChain,
    InterceptorFailed,
    LockDeclared,
    RedisCall,
    WorkerInfo,
    Wrap,
)

HOOKS = [name for name in vars(Interceptor) if not name.startswith("_")]
WRAPS = [name for name in HOOKS if name not in {"worker", "event"}]
CALL = RedisCall("settle")
WORKER = WorkerInfo("mailer", {"default": 1})


class Observer(Interceptor):
    """Notes when its wraps are entered and left."""

    def __init__(self, name: str, seen: list[str]) -> None:
        self.name = name
        self.seen = seen

    @contextmanager
    def redis(self, call: RedisCall) -> Generator[None]:
        self.seen.append(f"{self.name} enters")
        try:
            yield
        except BaseException as error:
            self.seen.append(f"{self.name} sees {type(error).__name__}")
            raise
        finally:
            self.seen.append(f"{self.name} leaves")

    @asynccontextmanager
    async def worker(self, call: WorkerInfo) -> AsyncGenerator[None]:
        self.seen.append(f"{self.name} starts")
        try:
            yield
        finally:
            await asyncio.sleep(0)
            self.seen.append(f"{self.name} stops")

    def event(self, event: Event) -> None:
        self.seen.append(f"{self.name} {type(event).__name__}")


class Failing(Interceptor):
    """Raises at one moment of every operation."""

    def __init__(self, moment: str, error: Callable[[], BaseException] = lambda: RuntimeError("mine")) -> None:
        self.moment = moment
        self.error = error

    def redis(self, call: RedisCall) -> Wrap:
        if self.moment == "call":
            raise self.error()
        return self._wrap()

    @contextmanager
    def _wrap(self) -> Generator[None]:
        if self.moment == "enter":
            raise self.error()
        try:
            yield
        finally:
            if self.moment == "exit":
                raise self.error()

    def worker(self, call: WorkerInfo) -> AsyncWrap:
        if self.moment == "call":
            raise self.error()
        return self._life()

    @asynccontextmanager
    async def _life(self) -> AsyncGenerator[None]:
        with self._wrap():
            yield

    def event(self, event: Event) -> None:
        if self.moment == "event":
            raise self.error()


def operate(chain: Interceptor, error: BaseException | None = None) -> None:
    with chain.redis(CALL):
        if error is not None:
            raise error


def test_the_first_interceptor_is_outermost():
    """Entered in order, left in reverse; events arrive in order."""
    seen: list[str] = []
    chain = InterceptorChain([Observer("first", seen), Observer("second", seen)])
    operate(chain)
    chain.event(LockDeclared("orders"))

    assert seen == [
        "first enters", "second enters", "second leaves", "first leaves",
        "first LockDeclared", "second LockDeclared",
    ]  # fmt: skip


async def test_a_worker_is_wrapped_asynchronously():
    """In the same order; leaving may take time."""
    seen: list[str] = []
    async with InterceptorChain([Observer("first", seen), Observer("second", seen)]).worker(WORKER):
        seen.append("works")

    assert seen == ["first starts", "second starts", "works", "second stops", "first stops"]


@pytest.mark.parametrize("name", WRAPS)
def test_every_wrap_is_forwarded(name: str):
    """A chain needs no code for a wrap: an override of any method of `Interceptor` is called with the call."""
    calls: list[object] = []
    wrap = contextmanager(lambda _, call: iter([calls.append(call)]))
    observer = type("Observer", (Interceptor,), {name: wrap})()
    chain = InterceptorChain([Interceptor(), observer])
    with getattr(chain, name)(CALL):
        pass

    assert calls == [CALL]
    others = [each for each in WRAPS if each != name]
    assert [each for each in others if each in vars(chain)] == []


def test_a_method_that_is_not_overridden_is_the_one_of_interceptor():
    """A chain of interceptors that do not override a wrap does nothing around its operation."""
    nothing = Interceptor().redis(CALL)

    assert InterceptorChain([Interceptor(), Interceptor()]).redis(CALL) is nothing
    assert InterceptorChain([InterceptorChain([Interceptor()])]).redis(CALL) is nothing


def test_chains_can_be_nested():
    """A chain is an interceptor."""
    seen: list[str] = []
    chain = InterceptorChain([InterceptorChain([Observer("inner", seen)])])
    operate(chain)
    chain.event(LockDeclared("orders"))

    assert seen == ["inner enters", "inner leaves", "inner LockDeclared"]


@pytest.mark.parametrize("moment", ["call", "enter", "exit"])
@pytest.mark.parametrize("is_first", [True, False])
def test_an_interceptor_that_raises_does_not_fail_the_operation(moment: str, is_first: bool):
    """The operation runs, and the other interceptor is entered, left, and gets the failure as an event."""
    seen: list[str] = []
    interceptors: list[Interceptor] = [Failing(moment), Observer("other", seen)]
    chain = InterceptorChain(interceptors if is_first else interceptors[::-1])
    operate(chain)

    assert sorted(seen) == ["other InterceptorFailed", "other enters", "other leaves"]


@pytest.mark.parametrize("moment", ["call", "enter", "exit"])
def test_the_operations_own_error_passes_unchanged(moment: str):
    """Neither replaced by an interceptor's error nor hidden from the others."""
    seen: list[str] = []
    error = OSError("gone")
    with pytest.raises(OSError, match="gone") as raised:
        operate(InterceptorChain([Observer("other", seen), Failing(moment)]), error)

    assert raised.value is error
    assert "other sees OSError" in seen


def test_an_interceptor_cannot_swallow_the_operations_error():
    """A wrap that returns normally from an exception changes nothing."""

    class Swallowing(Interceptor):
        @contextmanager
        def redis(self, call: RedisCall) -> Generator[None]:
            with suppress(OSError):
                yield

    seen: list[str] = []
    with pytest.raises(OSError, match="gone"):
        operate(InterceptorChain([Observer("other", seen), Swallowing()]), OSError("gone"))

    assert "other sees OSError" in seen
    assert "other InterceptorFailed" not in seen


@pytest.mark.parametrize("moment", ["call", "enter", "exit"])
def test_what_is_no_exception_is_not_caught(moment: str):
    """``SystemExit`` reaches the operation; the interceptors that were entered are left."""
    seen: list[str] = []
    chain = InterceptorChain([Observer("outer", seen), Failing(moment, SystemExit)])
    with pytest.raises(SystemExit):
        operate(chain)

    assert [each for each in seen if "Failed" in each] == []
    assert seen[-1] == "outer leaves"


@pytest.mark.parametrize("moment", ["call", "enter", "exit"])
async def test_an_interceptor_that_raises_does_not_stop_a_worker(moment: str):
    """It starts, works and stops; the other interceptor too."""
    seen: list[str] = []
    async with InterceptorChain([Failing(moment), Observer("other", seen)]).worker(WORKER):
        seen.append("works")

    assert [each for each in seen if "Failed" not in each] == ["other starts", "works", "other stops"]
    assert "other InterceptorFailed" in seen


async def test_a_cancelled_start_of_a_worker_leaves_what_was_entered():
    """Cancellation is not caught."""
    seen: list[str] = []
    chain = InterceptorChain([Observer("outer", seen), Failing("enter", asyncio.CancelledError)])
    with pytest.raises(asyncio.CancelledError):
        async with chain.worker(WORKER):
            pytest.fail("entered")

    assert seen == ["outer starts", "outer stops"]


def test_a_failed_event_is_reported_once_and_not_for_ever():
    """The event about it may fail in the same way; the others get both."""
    seen: list[str] = []
    chain = InterceptorChain([Failing("event"), Observer("other", seen)])
    chain.event(LockDeclared("orders"))

    assert seen == ["other InterceptorFailed", "other LockDeclared"]


def test_the_report_names_the_interceptor_and_its_method():
    """Enough to find it, with the error itself."""
    reports: list[Any] = []

    class Reports(Interceptor):
        def event(self, event: Event) -> None:
            reports.append(event)

    error = RuntimeError("mine")
    operate(InterceptorChain([Failing("enter", lambda: error), Reports()]))

    assert reports == [InterceptorFailed("Failing", "redis", error)]


def test_a_failure_is_logged_with_its_traceback_once_a_minute(caplog: pytest.LogCaptureFixture):
    """One line for each method of each interceptor."""
    chain = InterceptorChain([Failing("enter")])
    with caplog.at_level(logging.ERROR, "mageflow.interceptors"):
        for _ in range(3):
            operate(chain)

    (record,) = caplog.records
    assert record.getMessage() == "Failing.redis raised and was ignored"
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "mine"


def test_wraps_have_the_types_of_the_standard_library():
    """What a method returns by default can be entered, the worker's asynchronously."""
    for name in WRAPS:
        assert isinstance(getattr(Interceptor(), name)(CALL), AbstractContextManager)
    assert isinstance(Interceptor().worker(WORKER), AbstractAsyncContextManager)
