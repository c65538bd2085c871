"""The workers that ``bench_worker`` measures beside each other: ``python -m tests.benchmarks.worker_sides SIDE URL``.

- ``bare``: the bare SDK, with its log as it writes it by itself.
- ``raw``: the bare SDK, whose task makes the calls of `raw_calls` by hand; its logging is that of ``mageflow``.
- ``scripts``: the bare SDK, whose task sends two scripts that do nothing, with the arguments of a signed run.
- ``metrics``: mageflow without spans and logs of its own, with the SDK's log.
- ``mageflow``: everything on, as README sets it up: ``telemetry.configure`` with recording spans to an exporter that
  keeps nothing and JSON logs, metrics with their endpoint, Redis with reconciler and cluster view.
"""

import logging
import sys
from collections.abc import Sequence
from typing import Any, Final

from pydantic import BaseModel

WORKER: Final = "tests.benchmarks.worker_sides"


class Message(BaseModel):
    """What every run is given."""

    x: int = 0


async def body(msg: Message) -> dict[str, int]:
    """A task that does nothing, so that what is measured is everything else."""
    return {"x": msg.x}


async def bare_body(msg: Message, ctx: Any) -> dict[str, int]:
    """The same, as the bare SDK calls it."""
    return {"x": msg.x}


_RECORD: Final = "mageflow:{/3}:task:f3a3390e3cc043efb2fcb3c8423bd753"
_PARTS: Final = ("", ":definitions", ":members", ":results", ":live", ":outbox", ":held")
_KEYS: Final = (*(f"{_RECORD}{part}" for part in _PARTS), "mageflow:{/3}:due", "mageflow:{/3}:stats")
_CONFIG: Final = '{"active_ttl_s": 86400, "done_ttl_s": 3600, "grace_ms": 5000, "check_ms": 30000}'
_MEMBER: Final = "@a6b137d5b6c444209c55"
_RUN, _WORKER_ID = "cd858458-44a3-4406-bb35-be6f7260c224", "6f278bed-157c-4bd8-b847-d51fd1ea95d2"
_TRACE: Final = "00-8558a51ef25753324970442c8d82e0ef-24f557341616c754-03"
_ADMIT: Final = (
    *(_CONFIG, _MEMBER, "0", _RUN, _RUN, _WORKER_ID, "1", '{"x": 1}', _TRACE, "", "", "\nbench-mageflow\n", "", ""),
)
_SETTLE: Final = (
    *(_CONFIG, _MEMBER, _RUN, "1", "succeeded", "0", '{"x":1}', "", "", _TRACE, '{"signature_load":26,"queue":32}'),
)
SCRIPTS: Final = ((_KEYS, _ADMIT), (_KEYS, _SETTLE))
"""Keys and arguments of the two scripts of a signed run, as a worker has sent them."""


def with_two_scripts(redis_url: str) -> Any:
    """A task function of the bare SDK that sends two scripts by redis-py. They do nothing."""
    import redis.asyncio

    client: Any = redis.asyncio.Redis.from_url(redis_url)
    loaded: list[str] = []

    async def scripted(msg: Message, ctx: Any) -> dict[str, int]:
        if not loaded:
            loaded.append(await client.script_load("return 1"))
        for keys, arguments in SCRIPTS:
            await client.evalsha(loaded[0], len(keys), *keys, *arguments)
        return {"x": msg.x}

    return scripted


def configure(log: Any) -> Any:
    """Logs and spans as README sets them up. Returns the provider of tracers."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

    from mageflow import telemetry

    class Discard(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    telemetry.configure(service_name="bench", stream=log)
    provider = trace.get_tracer_provider()
    assert isinstance(provider, TracerProvider)
    provider.add_span_processor(SimpleSpanProcessor(Discard()))
    return provider


def with_raw_calls(log: Any) -> Any:
    """A task function of the bare SDK that records what mageflow does, in a process that logs as mageflow's does."""
    from prometheus_client import CollectorRegistry, start_http_server

    from tests.benchmarks.raw_calls import LOGGER, raw_calls

    provider, registry = configure(log), CollectorRegistry()
    start_http_server(0, "127.0.0.1", registry)
    handler = logging.StreamHandler(log)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger(LOGGER)
    logger.addHandler(handler)
    logger.propagate = False
    recorded = raw_calls(body, provider=provider, registry=registry, code_function=f"{WORKER}.{body.__qualname__}")

    async def raw_body(msg: Message, ctx: Any) -> dict[str, int]:
        return await recorded(msg, ctx)

    return raw_body


def drop_run_lines(worker: Any) -> None:
    """Drop the lines that the SDK writes for each run, in the worker and in its listener, as mageflow does."""
    from mageflow.hatchet.worker_compat import prepare_listener, tasks_of_worker
    from mageflow.telemetry.child_logs import prepare_logs_of_child
    from mageflow.telemetry.run_lines import ALWAYS, note_actions

    def prepare() -> Any:
        note_actions(list(tasks_of_worker(worker)), ALWAYS)
        return prepare_logs_of_child()

    prepare_listener(worker, prepare)


def make(side: str, log: Any, redis_url: str, *, name: str = "") -> tuple[Any, Any]:
    """The client of one side, and its task.

    Args:
        side: One of the sides above.
        log: Where a side that sets up its log writes it.
        redis_url: The server, for the sides that use it.
        name: Of the task; that of the side unless given.
    """
    from hatchet_sdk import Hatchet

    client: Any = Hatchet()
    function: Any = body
    if side == "bare":
        function = bare_body
    elif side == "raw":
        function = with_raw_calls(log)
    elif side == "scripts":
        function = with_two_scripts(redis_url)
    elif side == "metrics":
        from opentelemetry.trace import NoOpTracerProvider
        from prometheus_client import CollectorRegistry

        from mageflow import Mageflow, Settings

        logging.getLogger("mageflow").setLevel(logging.WARNING)
        off, settings = NoOpTracerProvider(), Settings(metrics_port=0)
        client = Mageflow(client, redis_url, settings=settings, registry=CollectorRegistry(), tracer_provider=off)
    else:
        from prometheus_client import CollectorRegistry

        from mageflow import Mageflow, Settings

        configure(log)
        logging.getLogger("mageflow").setLevel(logging.INFO)
        client = Mageflow(client, redis_url, settings=Settings(metrics_port=0), registry=CollectorRegistry())
    return client, client.task(name=name or f"bench-{side}", input_validator=Message)(function)


def serve(side: str, redis_url: str) -> None:
    """Be the worker of one side."""
    client, task = make(side, sys.stdout, redis_url)
    worker = client.worker(f"bench-{side}", slots=100, workflows=[task])
    if side == "raw":
        drop_run_lines(worker)
    worker.start()


if __name__ == "__main__":
    serve(*sys.argv[1:])
