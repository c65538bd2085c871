"""The shop of the stack as a worker for the live run, with one fault that a healthy engine does not have.

Started by `tests.dashboards.live_run` in a process of its own. Trace and span ids of every span that ends are written
to the file in the environment, so that exemplars can be looked up.
"""

import asyncio
import importlib.util
import os
import sys
import uuid
from datetime import timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from hatchet_sdk import Context, Hatchet
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from mageflow import Mageflow
from mageflow.hatchet import compat

REFUSED_TASK = "stock.refused"
NIGHT_WORKER = "night-watch"
"""The worker that is killed while it holds a lock."""


def load_driver() -> ModuleType:
    """The driver of the stack, imported from its file: it is no package."""
    path = Path(__file__).parents[2] / "dashboards/stack/driver.py"
    spec = importlib.util.spec_from_file_location("mageflow_stack_driver", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class Faults:
    """Tasks that only a test wants, declared beside the shop's."""

    def __init__(self, client: Mageflow, order_type: type[Any]) -> None:
        till = client.resource("till")

        @client.task(name=REFUSED_TASK, execution_timeout=timedelta(seconds=20))
        @client.stagger_execution(wait_delta=timedelta(seconds=1))
        async def refused(order: order_type) -> dict[str, int]:
            """Ask for time the engine does not grant."""
            return {"synced": order.number}

        @client.task(name="till.impatient")
        async def impatient(order: order_type) -> dict[str, int]:
            """Give up waiting for the till at once."""
            async with till.acquire(timeout=timedelta(seconds=0.2)):
                return {"counted": order.number}

        @client.task(name="live.noise")
        async def noise(order: order_type) -> dict[str, int]:
            """Fail with a class of its own each time, which no label can hold."""
            raise type(f"Noise{order.number}Error", (Exception,), {})

        vault = client.resource("vault")

        @client.task(name="vault.open", execution_timeout=timedelta(minutes=2))
        async def guard(order: order_type) -> dict[str, int]:
            """Hold a lock for as long as the order says, whatever becomes of the lease."""
            async with vault.acquire(key=order.number, on_lost="flag"):
                await asyncio.sleep(order.seconds)
            return {"guarded": order.number}

        @client.task(name="vault.night", execution_timeout=timedelta(minutes=2))
        async def night(order: order_type) -> dict[str, int]:
            """Hold a lock until the worker is killed."""
            async with vault.acquire(key="night"):
                await asyncio.sleep(order.seconds)
            return {"guarded": order.number}

        self.refused, self.impatient, self.noise, self.guard = refused, impatient, noise, guard
        self.night = night

    @property
    def tasks(self) -> list[Any]:
        """What the shop's workers serve; the night watch has a worker of its own."""
        return [self.refused, self.impatient, self.noise, self.guard]


def refuse_extensions() -> None:
    """Have the engine refuse the extensions of one task, by asking it about a run that does not exist."""
    ask = compat.aio_refresh_timeout

    async def ask_wrongly(ctx: Context, increment_by: str, *, timeout_seconds: float) -> Any:
        if ctx.task_name == REFUSED_TASK:
            stranger = SimpleNamespace(_dispatcher_client=ctx._dispatcher_client, task_run_id=str(uuid.uuid4()))
            return await ask(stranger, increment_by, timeout_seconds=timeout_seconds)
        return await ask(ctx, increment_by, timeout_seconds=timeout_seconds)

    compat.aio_refresh_timeout = ask_wrongly


class BrokenProcessor(SpanProcessor):
    """A program's own span processor with a bug, which telemetry has to survive."""

    def on_end(self, span: ReadableSpan) -> None:
        if span.name == "process live.noise":
            raise RuntimeError("a bug in somebody's span processor")


class IdFile(SpanExporter):
    """Writes ``trace_id span_id name`` of every span, one line each."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def export(self, spans: Any) -> SpanExportResult:
        with self._path.open("a") as file:
            file.writelines(_line(span) for span in spans)
        return SpanExportResult.SUCCESS


def _line(span: ReadableSpan) -> str:
    context = span.get_span_context()
    assert context is not None
    return f"{context.trace_id:032x} {context.span_id:016x} {span.name}\n"


def main() -> None:
    driver = load_driver()
    refuse_extensions()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(IdFile(Path(os.environ["LIVE_SPANS"]))))
    provider.add_span_processor(BrokenProcessor())
    client = Mageflow(Hatchet(), tracer_provider=provider)
    shop, faults = driver.declare(client), Faults(client, driver.Order)
    name = os.environ["LIVE_WORKER"]
    tasks = [faults.night] if name == NIGHT_WORKER else [*shop.tasks, *faults.tasks]
    client.worker(name, slots=30, durable_slots=5, workflows=tasks).start()


if __name__ == "__main__":
    main()
