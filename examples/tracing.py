"""Your own spans and log events stand inside mageflow's, across processes, with nothing to pass along.

``configure`` sets up traces (OTLP, where ``OTEL_EXPORTER_OTLP_ENDPOINT`` is set) and JSON logs for programs that have
set up nothing of their own. The trace of the program that starts a run goes on in the task, also in a thread.

Prints::

    one trace from here into the task: True
"""

import asyncio
import sys
import time

import structlog
from hatchet_sdk import Hatchet
from opentelemetry import trace
from pydantic import BaseModel

from mageflow import Mageflow
from mageflow.telemetry import configure

client = Mageflow(Hatchet())
tracer = trace.get_tracer(__name__)
log = structlog.get_logger()


class Page(BaseModel):
    number: int


@client.task(name="render-page")
def render_page(page: Page) -> dict[str, str]:
    with tracer.start_as_current_span("render") as span:
        time.sleep(0.01)
        # Carries task, run_id, attempt and trace_id: bound by mageflow around the task.
        log.info("page.rendered", number=page.number)
        return {"trace": f"{span.get_span_context().trace_id:032x}"}


async def main() -> None:
    with tracer.start_as_current_span("order") as span:
        rendered = await render_page.aio_run(Page(number=1))
    print("one trace from here into the task:", rendered["trace"] == f"{span.get_span_context().trace_id:032x}")


if __name__ == "__main__":
    configure(service_name="tracing-example")
    if "worker" in sys.argv:
        client.worker("tracing-example", workflows=[render_page]).start()
    else:
        asyncio.run(main())
