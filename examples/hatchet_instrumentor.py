"""Hatchet's own instrumentor stays on: no span is made twice, and mageflow's attributes go on the instrumentor's spans.

The instrumentor exports inputs and keys of runs unless ``HATCHET_CLIENT_OPENTELEMETRY_EXCLUDED_ATTRIBUTES`` excludes
them; a worker warns of it. Here the spans go to a list; a program gives its own tracer provider.

Prints::

    {'shipped': 7}
    hatchet.run_workflow
"""

import asyncio
import sys

from hatchet_sdk import Hatchet
from hatchet_sdk.opentelemetry.instrumentor import HatchetInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import BaseModel

from mageflow import Mageflow

spans = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(spans))
HatchetInstrumentor(tracer_provider=provider, enable_hatchet_otel_collector=False).instrument()

client = Mageflow(Hatchet(), tracer_provider=provider)


class Order(BaseModel):
    number: int


@client.task(name="instrumented-ship")
async def ship(order: Order) -> dict[str, int]:
    return {"shipped": order.number}


async def main() -> None:
    print(await ship.aio_run(Order(number=7)))
    for span in spans.get_finished_spans():
        print(span.name)


if __name__ == "__main__":
    if "worker" in sys.argv:
        client.worker("instrumentor-example", workflows=[ship]).start()
    else:
        asyncio.run(main())
