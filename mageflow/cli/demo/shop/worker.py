"""The worker of the demo and of docker-compose.yml: ``python -m mageflow.cli.demo.shop.worker``.

It does what a worker program of your own does: configure traces and logs, make a client, declare tasks, start.
"""

import argparse
import asyncio
import os
from collections.abc import AsyncGenerator
from pathlib import Path

from hatchet_sdk import Hatchet
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from mageflow import Mageflow
from mageflow.cli.demo.shop import Workload, declare, send_traffic
from mageflow.cli.demo.shop.spans import JsonLinesExporter
from mageflow.telemetry import configure

__all__ = ["main"]

_SLOTS = 60
"""More than the demo starts at once: a delayed run occupies its slot."""


def main() -> None:
    """Run the worker until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(
        prog="python -m mageflow.cli.demo.shop.worker", description="The worker of the demo."
    )
    parser.add_argument("--spans", type=Path, metavar="FILE", help="append each span to this file as a line of JSON")
    parser.add_argument("--traffic", action="store_true", help="also start work, at a low rate, until the worker stops")
    options = parser.parse_args()

    configure(service_name=os.environ.get("OTEL_SERVICE_NAME", "demo-worker"), logs="json")
    provider = trace.get_tracer_provider()
    if options.spans is not None and isinstance(provider, TracerProvider):
        provider.add_span_processor(SimpleSpanProcessor(JsonLinesExporter(options.spans)))
    client = Mageflow(Hatchet())
    shop = declare(client)

    async def traffic() -> AsyncGenerator[None, None]:
        sending = asyncio.create_task(send_traffic(Workload(client, shop)))
        yield None
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)

    lifespan = traffic if options.traffic else None
    client.worker("shop", slots=_SLOTS, durable_slots=5, workflows=shop.tasks, lifespan=lifespan).start()


if __name__ == "__main__":
    main()
