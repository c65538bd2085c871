"""What mageflow adds to one attempt inside a worker's process, in microseconds of CPU.

Run: ``python -m tests.benchmarks.bench_attempt`` (half a minute; ``--json`` for programs, ``--profile NAME`` prints
where the time of one side goes, ``--records`` what the raw calls and mageflow record).

The SDK's own code runs the attempt, as its worker does: a real ``Context``, the task's dependencies, the function, the
serialised output. Only the wire is missing, so that nothing but the attempt is measured. All sides take turns in one
process. CPU time of the process, because the wall clock also shows what else the machine does. The last side is the
same telemetry, called by hand in a task of the bare SDK (`raw_calls`): the limit.
"""

import argparse
import asyncio
import base64
import contextvars
import cProfile
import gc
import io
import json
import logging
import os
import pstats
import statistics
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from typing import Any, NamedTuple, cast

_CLAIMS = {"sub": "tenant", "server_url": "http://127.0.0.1:1", "grpc_broadcast_address": "127.0.0.1:1"}
_TOKEN = ".".join(
    [
        *(
            base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
            for part in ({"alg": "none"}, _CLAIMS)
        ),
        "signature",
    ]
)
os.environ.update(HATCHET_CLIENT_TOKEN=_TOKEN, HATCHET_CLIENT_TLS_STRATEGY="none")

from hatchet_sdk import Context, Hatchet  # noqa: E402
from hatchet_sdk.runnables.action import Action, ActionPayload, ActionType  # noqa: E402
from hatchet_sdk.runnables.contextvars import ctx_additional_metadata, ctx_step_run_id, ctx_workflow_run_id  # noqa: E402
from hatchet_sdk.serde import HATCHET_PYDANTIC_SENTINEL  # noqa: E402
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider  # noqa: E402
from opentelemetry.sdk.trace.export import (  # noqa: E402
    BatchSpanProcessor,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: E402
from opentelemetry.trace import NoOpTracerProvider  # noqa: E402
from prometheus_client import CollectorRegistry  # noqa: E402
from pydantic import BaseModel  # noqa: E402

from mageflow import Mageflow, Settings  # noqa: E402
from mageflow.interceptors import Enqueue, EnqueueItem  # noqa: E402
from mageflow.metadata import stamp  # noqa: E402
from tests.benchmarks.raw_calls import LOGGER, raw_calls  # noqa: E402

ROUNDS = 60
CALLS = 100


class Message(BaseModel):
    """What every run is given."""

    x: int = 0


class Discard(SpanExporter):
    """Keeps nothing."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Forget the spans."""
        return SpanExportResult.SUCCESS


async def body(msg: Message) -> dict[str, int]:
    """A task that does nothing, so that what is measured is everything else."""
    return {"x": msg.x}


async def bare_body(msg: Message, ctx: Any) -> dict[str, int]:
    """The same, as the bare SDK calls it."""
    return {"x": msg.x}


def _recording() -> TracerProvider:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(Discard(), max_queue_size=8192))
    return provider


class Made(NamedTuple):
    """One side: its task, the metadata of a run, and what its worker has open."""

    task: Any
    metadata: dict[str, Any]
    serving: AbstractAsyncContextManager[object]


def _bare() -> Made:
    return Made(Hatchet().task(name="bench", input_validator=Message)(bare_body), {}, nullcontext())


def _mageflow(provider: Any, registry: CollectorRegistry | None = None, **settings: Any) -> Made:
    client: Any = Mageflow(
        Hatchet(), settings=Settings(**settings), registry=registry or CollectorRegistry(), tracer_provider=provider
    )
    task = client.task(name="bench", input_validator=Message)(body)
    item = EnqueueItem("bench", stamp({}, source="direct"))
    with client.telemetry.interceptor.enqueue(Enqueue("run", [item])):
        pass
    return Made(task, dict(item.metadata), client._confirmations.running())


def _raw(provider: TracerProvider, registry: CollectorRegistry | None = None) -> Made:
    recorded = raw_calls(
        body,
        provider=provider,
        registry=registry or CollectorRegistry(),
        code_function=f"{body.__module__}.{body.__qualname__}",
    )
    sent = _mageflow(provider, metrics=False).metadata
    return Made(Hatchet().task(name="bench", input_validator=Message)(recorded), sent, nullcontext())


BARE, EVERYTHING, RAW = "bare SDK", "metrics, JSON logs and recording spans", "the same telemetry by hand, raw calls"
SIDES: dict[str, tuple[Callable[[], Made], int]] = {
    BARE: (_bare, logging.WARNING),
    "everything off": (lambda: _mageflow(NoOpTracerProvider(), metrics=False), logging.WARNING),
    "metrics": (lambda: _mageflow(NoOpTracerProvider()), logging.WARNING),
    "metrics and JSON logs": (lambda: _mageflow(NoOpTracerProvider()), logging.INFO),
    EVERYTHING: (lambda: _mageflow(_recording()), logging.INFO),
    RAW: (lambda: _raw(_recording()), logging.INFO),
}


def _action(metadata: dict[str, Any]) -> Action:
    return Action(
        tenant_id="tenant",
        worker_id="3b241101-e2bb-4255-8caf-4136c566a962",
        workflow_run_id="7d3b2c70-5a3f-4a86-9d4e-6a0e8d1f9f01",
        job_id="job",
        job_name="job",
        job_run_id="job-run",
        step_id="step",
        step_run_id="0f8b5c1e-33f7-4f2e-8e0a-0d6c1b2a3f44",
        action_id="bench:bench",
        action_payload=ActionPayload(input={"x": 1}),
        action_type=ActionType.START_STEP_RUN,
        retry_count=0,
        additional_metadata=metadata,
        child_workflow_index=None,
        child_workflow_key=None,
        parent_workflow_run_id=None,
        priority=1,
        workflow_version_id=None,
        workflow_id=None,
    )


def attempt_of(made: Made) -> Callable[[], Coroutine[Any, Any, None]]:
    """One attempt of a task, as ``Runner.async_wrapped_action_func`` and its callback take it."""
    task, action = made.task._task, _action(made.metadata)
    dispatcher = cast("Any", Hatchet())._client.dispatcher  # connects when it is used

    async def attempt() -> None:
        ctx = Context(
            action, dispatcher, *([cast("Any", None)] * 3), worker=cast("Any", None), runs_client=cast("Any", None),
            lifespan_context=None, log_sender=cast("Any", None), max_attempts=1, task_name="bench",
            workflow_name="bench", worker_labels=[],
        )  # fmt: skip
        ctx_step_run_id.set(action.step_run_id)
        ctx_workflow_run_id.set(action.workflow_run_id)
        ctx_additional_metadata.set(action.additional_metadata)
        async with task._unpack_dependencies_with_cleanup(ctx) as dependencies:
            output = await task.aio_call(ctx, dependencies)
        task._validators.step_output.dump_json(output, context=HATCHET_PYDANTIC_SENTINEL)

    return attempt


async def _round(attempt: Callable[[], Coroutine[Any, Any, None]], calls: int) -> float:
    loop = asyncio.get_running_loop()
    before = time.process_time()
    for _ in range(calls):  # a task and a context of its own for each, as the worker makes them
        await loop.create_task(attempt(), context=contextvars.Context())
    return (time.process_time() - before) / calls * 1e6


async def measure(rounds: int, calls: int) -> dict[str, list[float]]:
    """Microseconds per attempt of every side, by round."""
    logger = logging.getLogger("mageflow")
    results: dict[str, list[float]] = {name: [] for name in SIDES}
    made = {name: make() for name, (make, _) in SIDES.items()}
    async with AsyncExitStack() as stack:
        for each in made.values():
            await stack.enter_async_context(each.serving)
        attempts = {name: attempt_of(each) for name, each in made.items()}
        gc.freeze()
        for number in range(rounds + 1):
            for name, attempt in attempts.items():
                logger.setLevel(SIDES[name][1])
                took = await _round(attempt, calls)
                if number:  # the first fills caches
                    results[name].append(took)
    return results


def log_to(stream: io.TextIOBase) -> None:
    """Write mageflow's events as JSON lines."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(message)s"))
    for name in ("mageflow", LOGGER):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.propagate = False
    logger.setLevel(logging.INFO)


class _Sink(io.TextIOBase):
    """Takes the lines and counts them."""

    lines = 0

    def write(self, text: str) -> int:
        self.lines += 1
        return len(text)


def records() -> dict[str, Any]:
    """What one attempt records by each way: the span and its attributes, the fields of its line, and its series."""
    found: dict[str, Any] = {}
    for name, make in (("mageflow", _mageflow), ("raw", _raw)):
        exporter, registry, stream = InMemorySpanExporter(), CollectorRegistry(), io.StringIO()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        logging.getLogger("mageflow").setLevel(logging.INFO)
        made = make(provider, registry)
        exporter.clear()  # the span that sends the run
        log_to(stream)

        async def run(made: Made = made) -> None:
            async with made.serving:
                await _round(attempt_of(made), 1)

        asyncio.run(run())
        [span] = exporter.get_finished_spans()
        assert span.parent is not None
        assert span.context is not None
        assert f"{span.context.span_id:016x}" in stream.getvalue()
        found[name] = {
            "span": [span.name, span.kind.name, f"{span.parent.trace_id:032x}" in str(made.metadata["traceparent"])],
            "attributes": {key: type(value).__name__ for key, value in sorted((span.attributes or {}).items())},
            "line": {key: type(value).__name__ for key, value in sorted(json.loads(stream.getvalue()).items())},
            "series": sorted(
                [sample.name, *sorted(sample.labels.items())]
                for family in registry.collect()
                for sample in family.samples
                if family.type in ("counter", "histogram") and "enqueue" not in family.name
                if sample.value and "le" not in sample.labels
            ),
            "exemplars": sorted(
                sample.name for family in registry.collect() for sample in family.samples if sample.exemplar
            ),
        }
    return found


def profile(name: str) -> None:
    """Print where one side spends its time."""
    make, level = SIDES[name]
    made = make()
    logging.getLogger("mageflow").setLevel(level)
    profiler = cProfile.Profile()

    async def run() -> None:
        async with made.serving:
            await _round(attempt_of(made), CALLS)
            profiler.enable()
            await _round(attempt_of(made), 10 * CALLS)
            profiler.disable()

    asyncio.run(run())
    pstats.Stats(profiler).sort_stats("tottime").print_stats(60)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--calls", type=int, default=CALLS, help="attempts of each side in one round")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--profile", choices=SIDES, help="print a profile of one side instead")
    parser.add_argument("--records", action="store_true", help="print what mageflow and the raw calls record instead")
    options = parser.parse_args()
    if options.records:
        print(json.dumps(records()))
        return
    sink = _Sink()
    log_to(sink)
    if options.profile:
        profile(options.profile)
        return
    results = asyncio.run(measure(options.rounds, options.calls))
    if not sink.lines:
        raise AssertionError("nothing was logged")
    bare = results[BARE]
    # Differences within one round: what else the machine does hits all sides of it.
    added = {
        name: statistics.median(own - other for own, other in zip(values, bare, strict=True))
        for name, values in results.items()
    }
    lowest = {name: min(values) - min(bare) for name, values in results.items()}
    if options.json:
        found = {"rounds": options.rounds, "calls": options.calls, "bare": min(bare), "lowest": lowest}
        print(json.dumps({**found, "added": added, "everything": added[EVERYTHING], "raw": added[RAW]}))
        return
    print("microseconds of CPU above the bare SDK: the median of the rounds, and the difference of the lowest")
    for name in SIDES:
        print(f"{added[name]:8.1f} {lowest[name]:8.1f}  {name}")
    print(f"the bare SDK itself: {statistics.median(bare):.1f} and {min(bare):.1f}")
    print(f"everything on, over the raw calls: {added[EVERYTHING] / added[RAW]:.2f}")


if __name__ == "__main__":
    main()
