"""The telemetry of one attempt, called by hand: the limit for what mageflow can cost.

The same span with the same attributes, the same JSON line and the same metrics as mageflow records for a plain run
that succeeds, with the libraries alone, and nothing else: no guard around a failing exporter, no other outcome, no
fields for the loggers of the task function, no ``mageflow top``. What can be looked up once is looked up once.
"""

import json
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import CollectorRegistry, Counter, Histogram

from mageflow.telemetry.names import metrics
from mageflow.telemetry.names.metrics import Metric

__all__ = ["LOGGER", "raw_calls"]

LOGGER = "raw"


def raw_calls(
    body: Callable[[Any], Any], *, provider: TracerProvider, registry: CollectorRegistry, code_function: str
) -> Callable[[Any, Any], Any]:
    """A task function for the bare SDK that records itself."""

    def made(kind: type[Any], metric: Metric, *labels: str) -> Any:
        more: dict[str, Any] = {"buckets": metric.buckets} if kind is Histogram else {}
        return kind(metric.name, metric.help, metric.labels, registry=registry, **more).labels(*labels)

    runs = made(Counter, metrics.TASK_RUNS, "bench", "succeeded")
    seconds = made(Counter, metrics.TASK_STAGE_SECONDS, "bench", "body")
    duration = made(Histogram, metrics.TASK_RUN_DURATION, "bench", "ok")
    queued = made(Histogram, metrics.TASK_QUEUE_WAIT, "bench")
    used = made(Histogram, metrics.TASK_TIMEOUT_USED, "bench")
    tracer = provider.get_tracer("raw")
    propagator = TraceContextTextMapPropagator()
    logger = logging.getLogger(LOGGER)

    async def recorded(message: Any, ctx: Any) -> Any:
        metadata = ctx.additional_metadata
        began = time.monotonic()
        wait = max(0.0, time.time() - float(metadata["mageflow_enqueued_at"]))
        parent = propagator.extract(metadata)
        run_id, step_run_id, worker = ctx.workflow_run_id, ctx.task_run_id, ctx.worker_id
        attempt = ctx.attempt_number
        span = tracer.start_span(
            "process bench",
            parent,
            trace.SpanKind.CONSUMER,
            {
                "messaging.system": "hatchet",
                "hatchet.payload": "",
                "server.address": "127.0.0.1",
                "server.port": 1,
                "messaging.destination.name": "bench",
                "messaging.message.id": run_id,
                "messaging.client.id": worker,
                "hatchet.workflow_run_id": run_id,
                "hatchet.step_run_id": step_run_id,
                "hatchet.worker_id": worker,
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "mageflow.task.attempt": attempt,
                "mageflow.task.max_attempts": ctx.max_attempts,
                "mageflow.task.timeout_s": 60.0,
                "code.function.name": code_function,
                "mageflow.enqueue.source": metadata["mageflow_source"],
                "mageflow.queue.wait_s": wait,
            },
            record_exception=False,
        )
        token = otel_context.attach(trace.set_span_in_context(span, parent))
        context = span.get_span_context()
        trace_id, span_id = f"{context.trace_id:032x}", f"{context.span_id:016x}"
        exemplar = {"trace_id": trace_id, "span_id": span_id}
        queued.observe(wait, exemplar)
        result = await body(message)
        took = time.monotonic() - began
        seconds.inc(took)
        runs.inc()
        duration.observe(took, exemplar)
        used.observe(took / 60.0)
        line = {
            "event": "mageflow.task.finished",
            "level": "info",
            "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "logger": "mageflow",
            "task": "bench",
            "run_id": run_id,
            "step_run_id": step_run_id,
            "attempt": attempt,
            "worker": worker,
            "outcome": "succeeded",
            "duration_s": round(took, 6),
            "queue_wait_s": round(wait, 6),
            "trace_id": trace_id,
            "span_id": span_id,
            "trace_sampled": context.trace_flags.sampled,
        }
        logger.info(json.dumps(line, default=str))
        span.set_attributes(
            {
                "mageflow.task.outcome": "succeeded",
                "mageflow.task.will_retry": False,
                "mageflow.task.timeout_extended_s": 0.0,
            }
        )
        span.end()
        otel_context.detach(token)
        return result

    return recorded
