"""What one attempt's telemetry costs, beside the raw calls it is made of; and what the chain of interceptors adds.

Run: ``python tests/benchmarks/bench_telemetry.py``.

Printed, not asserted: wall time on a shared machine proves nothing by itself. The budget per attempt is 60 µs for
metrics and JSON logs and 200 µs with recording spans on top.
"""

import io
import json
import logging
import time
from collections.abc import Callable
from contextlib import nullcontext

import structlog
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from prometheus_client import CollectorRegistry, Counter, Histogram

from mageflow.config import Settings
from mageflow.interceptors import (
    Attempt,
    Enqueue,
    EnqueueItem,
    Event,
    Interceptor,
    InterceptorChain,
    LeaseRenewal,
    RedisCall,
    ResourceKey,
    Stagger,
    TaskDeclared,
    TaskInfo,
    TimeoutExtension,
    Wrap,
)
from mageflow.telemetry import Telemetry, add_trace_context
from mageflow.telemetry.names import metrics

ROUNDS = 5
CALLS = 2000
BUDGET_METRICS_LOGS = 60.0
BUDGET_ALL = 200.0

INFO = TaskInfo("bench", "bench", 60.0, 2)
STAGGERED = TaskInfo("bench-staggered", "bench-staggered", 60.0, 2, stagger_window_seconds=3.0)


class _Discard(SpanExporter):
    def export(self, spans: object) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def _provider() -> TracerProvider:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_Discard(), max_queue_size=4096))
    return provider


def _log_to_json(stream: io.StringIO) -> logging.Handler:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(message)s"))
    return handler


def microseconds(call: Callable[[], object]) -> float:
    """The best of some rounds: the cost without the neighbours' noise."""
    best = float("inf")
    for _ in range(ROUNDS):
        before = time.perf_counter()
        for _ in range(CALLS):
            call()
        best = min(best, (time.perf_counter() - before) / CALLS * 1e6)
    return best


def attempt_of(telemetry: Telemetry, info: TaskInfo = INFO) -> Callable[[], None]:
    """One plain successful attempt of a run that was enqueued by us."""
    interceptor = telemetry.interceptor
    item = EnqueueItem(info.name, {})
    with interceptor.enqueue(Enqueue("run", [item])):
        pass

    def call() -> None:
        attempt = Attempt(info, "run", "step", "worker", 1, 3, item.metadata, lambda: False)
        with interceptor.attempt(attempt):
            if info.stagger_window_seconds is not None:
                stagger = Stagger(attempt, 3.0, 1.0)
                with interceptor.stagger(stagger):
                    extension = TimeoutExtension(attempt, "stagger", 1.1)
                    with interceptor.extend_timeout(extension):
                        extension.granted_seconds = 1.1
            with interceptor.execute(attempt):
                pass
            attempt.outcome = "succeeded"

    return call


def enqueue_of(telemetry: Telemetry) -> Callable[[], None]:
    """One enqueue of one run."""
    interceptor = telemetry.interceptor

    def call() -> None:
        with interceptor.enqueue(Enqueue("run", [EnqueueItem("bench", {})])):
            pass

    return call


def _telemetry(provider: object, **settings: object) -> Telemetry:
    telemetry = Telemetry(Settings(**settings), registry=CollectorRegistry(), tracer_provider=provider)  # type: ignore[arg-type]
    for info in (INFO, STAGGERED):
        telemetry.interceptor.event(TaskDeclared(info))
    return telemetry


def raw_calls() -> tuple[Callable[[], None], Callable[[], None]]:
    """The library calls one attempt cannot do without: metrics and logs, and the span around them."""
    registry = CollectorRegistry()
    runs = Counter("runs", "h", ["task", "outcome"], registry=registry).labels("bench", "succeeded")
    stage = Counter("stage", "h", ["task", "stage"], registry=registry).labels("bench", "body")
    histograms = [
        Histogram(name, "h", ["task"], registry=registry, buckets=metrics.DUR).labels("bench")
        for name in ("duration", "wait", "used")
    ]
    logger = structlog.wrap_logger(
        logging.getLogger("mageflow"),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            add_trace_context,
            structlog.processors.JSONRenderer(default=str),
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
    ).bind()
    exemplar = {"trace_id": "0" * 32, "span_id": "0" * 16}

    def metrics_and_logs() -> None:
        tokens = structlog.contextvars.bind_contextvars(
            task="bench", run_id="r", step_run_id="s", attempt=1, worker="w"
        )
        histograms[1].observe(0.1, exemplar)
        runs.inc()
        stage.inc(0.1)
        histograms[0].observe(0.1, exemplar)
        histograms[2].observe(0.1)
        logger.info("mageflow.task.finished", outcome="succeeded", duration_s=0.1, queue_wait_s=0.1)
        structlog.contextvars.reset_contextvars(**tokens)

    tracer = _provider().get_tracer("raw")
    attributes = {f"attribute.{number}": "value" for number in range(16)}

    def everything() -> None:
        span = tracer.start_span("process bench", kind=trace.SpanKind.CONSUMER, attributes=attributes)
        token = otel_context.attach(trace.set_span_in_context(span))
        metrics_and_logs()
        span.set_attributes({"a": "succeeded", "b": False, "c": 0.0})
        span.end()
        otel_context.detach(token)

    return metrics_and_logs, everything


class _Observer(Interceptor):
    """One wrap, one event, nothing done in either."""

    def redis(self, call: RedisCall) -> Wrap:
        return _NOTHING

    def event(self, event: Event) -> None:
        pass


_NOTHING = nullcontext()
_IDLE = InterceptorChain([Interceptor(), Interceptor()])


def chain_calls() -> dict[str, Callable[[], object]]:
    """One wrap or event through chains of different lengths."""
    call, event = RedisCall("settle"), LeaseRenewal(ResourceKey("ledger"), "ok")

    def wrapped(interceptor: Interceptor) -> Callable[[], None]:
        def run() -> None:
            with interceptor.redis(call):
                pass

        return run

    one, two = InterceptorChain([_Observer()]), InterceptorChain([_Observer(), _Observer()])
    return {
        "wrap: no chain": wrapped(_Observer()),
        "wrap: chain of 2 that do not override it": wrapped(_IDLE),
        "wrap: chain of 1": wrapped(one),
        "wrap: chain of 2": wrapped(two),
        "wrap: chain of 2, of which 1 overrides it": wrapped(InterceptorChain([Interceptor(), _Observer()])),
        "event: chain of 2 that do not override it": lambda: _IDLE.event(event),
        "event: chain of 1": lambda: one.event(event),
        "event: chain of 2": lambda: two.event(event),
    }


def measure() -> dict[str, float]:
    """Microseconds per call, by what is switched on."""
    logger = logging.getLogger("mageflow")
    stream = io.StringIO()
    handler = _log_to_json(stream)
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.INFO)
    results: dict[str, float] = {}
    try:
        raw_some, raw_all = raw_calls()
        results["raw calls: metrics + JSON logs"] = microseconds(raw_some)
        results["raw calls: metrics + JSON logs + recording span"] = microseconds(raw_all)
        no_spans = trace.NoOpTracerProvider()
        quiet = _telemetry(no_spans)
        results["attempt: metrics + JSON logs"] = microseconds(attempt_of(quiet))
        full = _telemetry(_provider())
        results["attempt: metrics + JSON logs + recording span"] = microseconds(attempt_of(full))
        results["staggered attempt: everything (3 spans, 3 events)"] = microseconds(attempt_of(full, STAGGERED))
        results["enqueue: metrics + recording span"] = microseconds(enqueue_of(full))
        logger.setLevel(logging.WARNING)
        results["attempt: metrics + filtered logs"] = microseconds(attempt_of(quiet))
        results["attempt: metrics off, no spans, filtered logs"] = microseconds(
            attempt_of(_telemetry(no_spans, metrics=False))
        )
        first = json.loads(stream.getvalue().splitlines()[-1])
        if first["event"] not in ("mageflow.task.finished", "mageflow.stagger.started"):
            raise AssertionError(f"the events did not reach the handler: {first}")
    finally:
        logger.removeHandler(handler)
        logger.propagate = True
        logger.setLevel(logging.NOTSET)
    return results


def main() -> None:
    """Print the table."""
    for name, call in chain_calls().items():
        print(f"{microseconds(call) * 1000:8.0f} ns  {name}")
    results = measure()
    for name, cost in results.items():
        print(f"{cost:8.1f} µs  {name}")
    some, everything = results["attempt: metrics + JSON logs"], results["attempt: metrics + JSON logs + recording span"]
    print(
        f"budget: {some:.1f} of {BUDGET_METRICS_LOGS:.0f} µs without spans, "
        f"{everything:.1f} of {BUDGET_ALL:.0f} µs with"
    )


if __name__ == "__main__":
    main()
