"""A telemetry object of its own for every test: private registry, private tracer provider, captured log events."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import pytest
import structlog
from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry

from mageflow.config import Settings
from mageflow.hatchet.enqueue import Enqueuer, on_behalf_of
from mageflow.interceptors import Attempt, TaskDeclared, TaskInfo
from mageflow.telemetry import Telemetry
from mageflow.telemetry.interceptor import TelemetryInterceptor
from mageflow.testing import capture_logs, capture_spans, samples
from mageflow.testing.capture import LogCapture, Samples, SpanCapture
from mageflow.types import DispatchRun

TASK = TaskInfo("send", "send-workflow", 30.0, 2, code_function_name="shop.tasks.send")
STAGGERED = TaskInfo("crowd", "crowd", 30.0, 0, stagger_window_seconds=3.0)


class Stopwatch:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Bench:
    """One client's telemetry and what it said."""

    telemetry: Telemetry
    registry: CollectorRegistry
    spans: SpanCapture
    logs: LogCapture
    clock: Stopwatch = field(default_factory=Stopwatch)

    @property
    def interceptor(self) -> TelemetryInterceptor:
        return self.telemetry.interceptor

    @property
    def samples(self) -> Samples:
        return samples(self.registry)

    def attempt(self, task: TaskInfo = TASK, **facts: Any) -> Attempt:
        """An attempt that has just been assigned; ``monotonic`` is this bench's clock."""
        known: dict[str, Any] = {
            "workflow_run_id": "run-1",
            "task_run_id": "step-1",
            "worker_id": "worker-1",
            "attempt_number": 1,
            "max_attempts": task.retries + 1,
            "metadata": {},
            "is_cancelled": lambda: False,
            "monotonic": self.clock,
        }
        return Attempt(task=task, **{**known, **facts})

    def run(self, attempt: Attempt, error: BaseException | None = None, seconds: float = 0.0, **filled_in: Any) -> None:
        """Take an attempt through the interceptor as the runner does; ``error`` is what the body raises."""
        try:
            with self.interceptor.attempt(attempt):
                try:
                    with self.interceptor.execute(attempt):
                        self.clock.now += seconds
                        if error is not None:
                            raise error
                finally:
                    attempt.exception = error
                    for name, value in filled_in.items():
                        setattr(attempt, name, value)
        except BaseException as raised:
            if raised is not error:
                raise

    def enqueue(self, task: str = "send", *, run: DispatchRun | None = None, **facts: Any) -> dict[str, object]:
        """Send one run as the client does, of a signature where one is given; the metadata it was sent with."""
        with (
            on_behalf_of(run) if run is not None else nullcontext(),
            Enqueuer(self.interceptor).single(task, {}, **facts) as item,
        ):
            item.run_id = "run-1"
        return item.metadata


@pytest.fixture
def make_bench() -> Iterator[Callable[..., Bench]]:
    """Benches with settings of one's own."""
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    # A test that breaks `detach` on purpose leaves its span current.
    otel_context.attach(Context())
    opened: list[Any] = []

    def make(**settings: Any) -> Bench:
        registry = CollectorRegistry()
        spans, logs = capture_spans(TracerProvider(shutdown_on_exit=False)), capture_logs()
        opened.extend((spans, logs))
        span_capture = spans.__enter__()
        telemetry = Telemetry(Settings(**settings), registry=registry, tracer_provider=span_capture.provider)
        for task in (TASK, STAGGERED):
            telemetry.interceptor.event(TaskDeclared(task))
        return Bench(telemetry, registry, span_capture, logs.__enter__())

    yield make
    for each in opened:
        each.__exit__(None, None, None)
    structlog.reset_defaults()


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    """A bench with default settings."""
    return make_bench()
