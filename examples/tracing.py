"""Your own spans and log events are part of mageflow's traces, across processes, without code to pass a context.

``configure`` sets up traces (with OTLP if ``OTEL_EXPORTER_OTLP_ENDPOINT`` is set) and JSON logs for programs that have
none. The trace of the program that starts a run continues in the task, also in the thread of a synchronous function.

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
        # mageflow adds task, run_id, attempt and trace_id.
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
