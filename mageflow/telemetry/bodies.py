"""The body of an attempt, on the event loop and in the thread of a synchronous one."""

from contextvars import Token
from types import TracebackType

from opentelemetry import context as otel_context
from opentelemetry.context import Context

from mageflow.interceptors import Attempt
from mageflow.telemetry.logs import BOUND, bind, unbind
from mageflow.telemetry.recorder import Recorder

__all__ = ["ExecuteScope", "ThreadScope"]


class ExecuteScope:
    """Around the body. What was learnt while loading (the flow's name) is bound here."""

    __slots__ = ("_bound", "_recorder", "_scope", "_token")

    def __init__(self, recorder: Recorder, attempt: Attempt) -> None:
        self._recorder = recorder
        self._scope = recorder.live.scope_of(attempt)
        self._token: Token[Context] | None = None
        self._bound: BOUND | None = None

    def __enter__(self) -> None:
        scope, guard = self._scope, self._recorder.guard
        if scope is None:
            return
        if guard.traces.closed:
            with guard.traces.at("execute.enter"):
                self._token = scope.open_execute()
        if scope.has_stages and guard.context.closed:
            with guard.context.at("execute.bind"):
                self._bound = bind(scope.log_fields())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        guard = self._recorder.guard
        with guard.context.at("execute.close"):
            if self._scope is not None:
                self._scope.close_execute()
            if self._token is not None:
                otel_context.detach(self._token)
            if self._bound is not None:
                unbind(self._bound)


class ThreadScope:
    """In the thread of a synchronous body: brings the contexts in, and leaves the pooled thread clean.

    The SDK copies a fixed list of its own variables into the thread: structlog's are lost on the way, and the
    OpenTelemetry context is attached and never detached (hatchet-sdk 1.43.1, ``worker/runner/utils/capture_logs.py``).
    """

    __slots__ = ("_attempt", "_bound", "_recorder", "_token")

    def __init__(self, recorder: Recorder, attempt: Attempt) -> None:
        self._recorder = recorder
        self._attempt = attempt
        self._bound: BOUND | None = None
        self._token: Token[Context] | None = None

    def __enter__(self) -> None:
        scope, guard = self._recorder.live.scope_of(self._attempt), self._recorder.guard
        if scope is None:
            return
        if guard.context.closed:
            with guard.context.at("thread.enter"):
                self._bound = bind(scope.log_fields())
                if scope.context is not None:
                    self._token = otel_context.attach(scope.context)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._recorder.guard.context.at("thread.exit"):
            if self._bound is not None:
                unbind(self._bound)
            if self._token is not None:
                otel_context.detach(self._token)
                # What the SDK attached before us stays for the next task of this thread otherwise.
                otel_context.attach(Context())
