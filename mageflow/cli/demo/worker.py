"""The demo's worker: ``python -m mageflow.cli.demo.worker SPANS_FILE``, an ordinary worker program.

It sets up what a program of your own would: a tracer provider and JSON logs, then a client and its tasks.
"""

import sys
from pathlib import Path

from hatchet_sdk import Hatchet
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from mageflow import Mageflow
from mageflow.cli.demo.flow_tasks import declare_warehouse
from mageflow.cli.demo.spans import JsonLinesExporter
from mageflow.cli.demo.tasks import declare
from mageflow.telemetry import configure

__all__ = ["main"]

SLOTS = 60
"""More than there are runs in the crowd: a delayed run holds its slot."""


def main(spans_file: Path) -> None:
    """Run the worker until it is asked to stop."""
    configure(service_name="demo-worker", logs="json")
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        provider.add_span_processor(SimpleSpanProcessor(JsonLinesExporter(spans_file)))
    client = Mageflow(Hatchet())
    tasks = [*declare(client).all(), *declare_warehouse(client).all()]
    client.worker("demo-worker", slots=SLOTS, workflows=tasks).start()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
