"""A real worker with Hatchet's real instrumentor, run by ``test_instrumented_worker.py``.

Arguments: the file spans are appended to, the file log lines are appended to.
"""

import json
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hatchet_sdk import Context, Hatchet
from hatchet_sdk.opentelemetry.instrumentor import HatchetInstrumentor
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from pydantic import BaseModel

from mageflow import Mageflow, Settings


class Message(BaseModel):
    secret: str = ""


class ToFile(SpanExporter):
    """One JSON object per span."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with self._path.open("a") as file:
            for span in spans:
                file.write(span.to_json(indent=None) + "\n")
        return SpanExportResult.SUCCESS


def main() -> None:
    """Serve until terminated."""
    spans, logs = Path(sys.argv[1]), Path(sys.argv[2])
    handler = logging.FileHandler(logs)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logging.getLogger("mageflow").addHandler(handler)
    logging.getLogger("mageflow").setLevel(logging.DEBUG)
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(ToFile(spans)))
    trace.set_tracer_provider(provider)
    HatchetInstrumentor(tracer_provider=provider, enable_hatchet_otel_collector=False).instrument()
    client = Mageflow(Hatchet(), settings=Settings(metrics_port=0))
    tracer = trace.get_tracer("user")

    @client.task(name="hi-child")
    def child(msg: Message) -> dict[str, Any]:
        with tracer.start_as_current_span("query"):
            client.telemetry.log.info("in the child")
            time.sleep(0.01)
        return {"ok": True}

    @client.task(name="hi-parent")
    async def parent(msg: Message) -> dict[str, Any]:
        result = await child.aio_run(msg)
        return {"child": json.loads(json.dumps(result))}

    @client.task(name="hi-flaky", retries=1)
    @client.with_ctx
    async def flaky(msg: Message, ctx: Context) -> dict[str, Any]:
        if ctx.attempt_number == 1:
            raise ValueError(msg.secret)
        return {}

    client.worker("instrumented", slots=10, workflows=[parent, child, flaky]).start()


if __name__ == "__main__":
    main()
