"""Signals of locks: name, labels and value of every sample, spans with their links, log events with their fields."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import redis
import structlog
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import StatusCode
from prometheus_client import CollectorRegistry

from mageflow.config import Settings
from mageflow.errors import DeadlockError, LockTimeoutError
from mageflow.interceptors import (
    Attempt,
    Event,
    Interceptor,
    InterceptorChain,
    LeaseRenewal,
    TaskDeclared,
    current_attempt,
)
from mageflow.invocation import OutcomeConfirmations
from mageflow.locks import LockService
from mageflow.telemetry import Telemetry
from mageflow.testing import capture_logs, capture_spans, samples
from mageflow.testing.capture import LogCapture, Samples, SpanCapture
from mageflow.testing.valkey import EmbeddedValkey
from tests.locks.conftest import Services
from tests.locks.runs import Gate, attempt, start, until, waiting

CANARY = "customer-4711"


@dataclass
class Process:
    """One client's telemetry and locks."""

    telemetry: Telemetry
    registry: CollectorRegistry
    locks: LockService

    @property
    def samples(self) -> Samples:
        return samples(self.registry)

    async def run(self, run: Attempt, body: Callable[[], Awaitable[Any]]) -> Any:
        """Run an attempt as the task runner does: observed, and released at the end."""
        with self.telemetry.interceptor.attempt(run):
            current_attempt.set(run)
            try:
                return await body()
            finally:
                await self.locks.release_attempt(run)


@pytest.fixture
def spans() -> Iterator[SpanCapture]:
    with capture_spans(TracerProvider(shutdown_on_exit=False)) as spans:
        yield spans


@pytest.fixture
def logs() -> Iterator[LogCapture]:
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    with capture_logs() as logs:
        yield logs


@pytest.fixture
def process(spans: SpanCapture, logs: LogCapture, services: Services) -> Callable[..., Process]:
    """Makes processes with telemetry of their own; spans and logs of all of them are captured together."""

    def make(*tasks: str, lease_seconds: float = 15.0, **settings: Any) -> Process:
        registry = CollectorRegistry()
        telemetry = Telemetry(Settings(**settings), registry=registry, tracer_provider=spans.provider)
        for task in tasks:
            telemetry.interceptor.event(TaskDeclared(attempt(task, task=task).task))
        locks = services(telemetry.interceptor, lease_seconds=lease_seconds)
        return Process(telemetry, registry, locks)

    return make


Make = Callable[..., Process]


async def test_contention_is_counted_traced_and_logged(process: Make, spans: SpanCapture, logs: LogCapture) -> None:
    """While it lasts: gauges and the edge by task names. Afterwards: counters, histograms, and a link to the holder."""
    one, two = process("writer"), process("reader")
    gate = Gate()

    async def hold() -> None:
        async with one.locks.resource("orders").acquire(CANARY):
            await gate.pass_through()

    async def ask() -> None:
        async with two.locks.resource("orders").acquire(CANARY):
            pass

    holder = start(one.run(attempt("r1", task="writer"), hold))
    await gate.reached()
    reader = attempt("r2", task="reader")
    waiter = start(two.run(reader, ask))
    await waiting(one.locks, 1)
    await until(lambda: logs.named("mageflow.lock.waiting"))
    held, wanted = one.samples, two.samples
    assert held.value("mageflow_lock_holders", lock="orders", task="writer") == 1
    assert held.value("mageflow_lock_waiters", lock="orders", task="writer") == 0
    assert held.value("mageflow_lock_oldest_hold_seconds", lock="orders", task="writer") >= 1
    assert wanted.value("mageflow_lock_waiters", lock="orders", task="reader") == 1
    assert wanted.value("mageflow_lock_oldest_wait_seconds", lock="orders", task="reader") >= 1
    assert wanted.value("mageflow_lock_wait_edges", waiter_task="reader", holder_task="writer", lock="orders") == 1
    assert wanted.value("mageflow_tasks_in_flight", task="reader", phase="lock_wait") == 1
    gate.open()
    await asyncio.gather(holder, waiter)
    held, wanted = one.samples, two.samples
    for seen in (held, wanted):
        assert seen.value("mageflow_lock_acquisitions_total", lock="orders", outcome="acquired") == 1
        assert seen.value("mageflow_lock_acquisitions_total", lock="orders", outcome="timeout") == 0
        assert seen.value("mageflow_lock_hold_seconds_count", lock="orders") == 1
        assert seen.value("mageflow_lock_wait_seconds_count", lock="orders") == 1
    assert wanted.value("mageflow_lock_wait_seconds_sum", lock="orders") >= 1
    assert wanted.value("mageflow_lock_waiters", lock="orders", task="reader") == 0
    assert wanted.value("mageflow_deadlock_checks_total", result="clean") == 1
    assert wanted.value("mageflow_task_stage_seconds_total", task="reader", stage="lock_wait") >= 1
    assert wanted.total("mageflow_deadlocks_total", lock="orders", victim_task="reader") == 0

    first, second = sorted(spans.named("acquire orders"), key=lambda span: span.start_time)
    assert [link.context.span_id for link in second.links] == [first.context.span_id]
    assert second.attributes["mageflow.lock.name"] == "orders"
    assert second.attributes["mageflow.lock.outcome"] == "acquired"
    assert second.attributes["mageflow.lock.queue_position"] == 1
    assert second.attributes["mageflow.lock.waited_s"] >= 1
    assert [event.name for event in second.events] == ["mageflow.lock.queued", "mageflow.lock.granted"]
    assert [event.name for event in first.events] == ["mageflow.lock.granted"]

    event = logs.one("mageflow.lock.waiting")
    assert event["task"] == "reader"
    assert event["run_id"] == "r2"
    assert event["lock"] == "orders"
    (holding,) = event["holders"]
    assert holding["task"] == "writer"
    assert holding["run_id"] == "r1"
    assert holding["worker"] == "worker-1"
    assert holding["trace_id"] == f"{first.context.trace_id:032x}"
    assert logs.named("mageflow.lock.released")


async def test_timeout_is_an_error_that_names_the_holders(process: Make, spans: SpanCapture, logs: LogCapture) -> None:
    """Counter, span status and warning agree."""
    one = process("writer", "reader")
    orders = one.locks.resource("orders")

    async def ask() -> None:
        async with orders.acquire(timeout=timedelta(seconds=0.1)):
            pass

    async def hold() -> None:
        async with orders.acquire():
            with pytest.raises(LockTimeoutError):
                await start(one.run(attempt("r2", task="reader"), ask))

    await start(one.run(attempt("r1", task="writer"), hold))
    assert one.samples.value("mageflow_lock_acquisitions_total", lock="orders", outcome="timeout") == 1
    span = next(each for each in spans.named("acquire orders") if each.attributes["mageflow.lock.outcome"] == "timeout")
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["error.type"] == "mageflow.errors.LockTimeoutError"
    event = logs.one("mageflow.lock.timeout")
    assert event["level"] == "warning"
    assert event["waited_s"] >= 0.1
    assert [each["task"] for each in event["holders"]] == ["writer"]


async def test_deadlock_is_recorded_once_with_every_member(process: Make, spans: SpanCapture, logs: LogCapture) -> None:
    """Only the closing process counts, logs and traces it; its span links the acquire span of every member."""
    one, two = process("left"), process("right")
    gates = [Gate(), Gate()]

    def crossing(where: Process, gate: Gate, first: str, second: str) -> Callable[[], Awaitable[None]]:
        async def body() -> None:
            async with where.locks.resource(first).acquire():
                await gate.pass_through()
                async with where.locks.resource(second).acquire():
                    pass

        return body

    left = start(one.run(attempt("r1", task="left"), crossing(one, gates[0], "alpha", "beta")))
    right = start(two.run(attempt("r2", task="right", retries=1), crossing(two, gates[1], "beta", "alpha")))
    for gate in gates:
        await gate.reached()
    gates[0].open()
    await waiting(one.locks, 1)
    gates[1].open()
    with pytest.raises(DeadlockError):
        await right
    await left
    assert two.samples.value(
        "mageflow_deadlocks_total", lock="alpha", victim_task="right", resolution="victim_retried"
    ) == 1  # fmt: skip
    assert two.samples.value("mageflow_deadlock_cycle_length_sum") == 2
    assert two.samples.value("mageflow_deadlock_checks_total", result="cycle") == 1
    assert two.samples.value("mageflow_deadlock_check_duration_seconds_count") == 1
    assert two.samples.value("mageflow_lock_acquisitions_total", lock="alpha", outcome="deadlock") == 1
    assert one.samples.total("mageflow_deadlocks_total") == 0
    span = spans.one("resolve deadlock")
    assert span.parent is None
    asking = [
        each
        for each in (*spans.named("acquire alpha"), *spans.named("acquire beta"))
        if each.attributes["mageflow.lock.outcome"] == "deadlock" or "mageflow.lock.queue_position" in each.attributes
    ]
    assert {link.context.span_id for link in span.links} == {each.context.span_id for each in asking}
    assert span.attributes["mageflow.deadlock.cycle_length"] == 2
    assert span.attributes["mageflow.deadlock.victim_task"] == "right"
    assert span.attributes["mageflow.deadlock.members"] == ("r2", "r1")
    assert len(span.events) == 2
    assert span.status.status_code is StatusCode.UNSET
    victim = next(each for each in asking if each.attributes["mageflow.lock.outcome"] == "deadlock")
    assert victim.status.status_code is StatusCode.ERROR
    assert "mageflow.deadlock.victim" in [event.name for event in victim.events]
    event = logs.one("mageflow.deadlock.detected")
    assert event["level"] == "error"
    assert event["policy"] == "requester"
    assert event["deadlock_trace_id"] == f"{span.context.trace_id:032x}"
    assert event["victim"] == {"task": "right", "run_id": "r2"}
    assert event["cycle"] == [
        {"task": "right", "run_id": "r2", "waits_for": "r1", "lock": "alpha"},
        {"task": "left", "run_id": "r1", "waits_for": "r2", "lock": "beta"},
    ]
    assert logs.one("mageflow.deadlock.resolved")["resolution"] == "victim_retried"


async def test_lost_lease_is_critical(
    process: Make, spans: SpanCapture, logs: LogCapture, valkey: EmbeddedValkey
) -> None:
    """Counter, log event with its run, and an event on the attempt's span."""
    one = process("writer", lease_seconds=0.6)

    async def hold() -> None:
        async with one.locks.resource("orders").acquire(on_lost="flag") as lease:
            await asyncio.to_thread(valkey.flush)
            await until(lambda: lease.is_lost)

    await start(one.run(attempt("r1", task="writer"), hold))
    assert one.samples.value("mageflow_lock_lease_renewals_total", lock="orders", result="lost") == 1
    event = logs.one("mageflow.lock.lease_lost")
    assert (event["level"], event["lock"], event["task"], event["run_id"]) == ("critical", "orders", "writer", "r1")
    assert event["held_s"] > 0
    assert [event.name for event in spans.one("process writer").events] == ["mageflow.lock.lease_lost"]


async def test_a_lease_that_ends_while_redis_is_frozen_is_counted(
    process: Make, logs: LogCapture, valkey: EmbeddedValkey
) -> None:
    """Redis reports nothing: the clock of the process says that the lease is over."""
    one = process("writer", lease_seconds=0.9)

    async def hold() -> None:
        async with one.locks.resource("orders").acquire(on_lost="flag") as lease:
            with redis.Redis.from_url(valkey.url) as client:
                client.client_pause(8000, all=True)  # longer than the client waits for an answer
            await until(lambda: lease.is_lost)
            await until(lambda: logs.named("mageflow.lock.lease_lost"))
            with redis.Redis.from_url(valkey.url, socket_timeout=20) as client:
                await asyncio.to_thread(client.ping)
            await asyncio.sleep(1)  # a renewal that Redis answers again

    await start(one.run(attempt("r1", task="writer"), hold))
    assert one.samples.value("mageflow_lock_lease_renewals_total", lock="orders", result="lost") == 1
    assert len(logs.named("mageflow.lock.lease_lost")) == 1


async def test_a_lease_that_ends_while_the_process_stands_still_is_counted(process: Make, logs: LogCapture) -> None:
    """The block ends right after the pause, before a renewal can notice anything."""
    one = process("writer", lease_seconds=0.6)

    async def hold() -> None:
        async with one.locks.resource("orders").acquire(on_lost="flag") as lease:
            time.sleep(1.5)  # noqa: ASYNC251 - as a stopped process, or a blocked loop
            assert lease.is_lost

    await start(one.run(attempt("r1", task="writer"), hold))
    assert one.samples.value("mageflow_lock_lease_renewals_total", lock="orders", result="lost") == 1
    event = logs.one("mageflow.lock.lease_lost")
    assert (event["run_id"], event["loop_blocked_s"]) == ("r1", None)  # no worker watches this loop


async def test_a_lease_that_is_lost_because_the_loop_was_blocked_says_so(process: Make, logs: LogCapture) -> None:
    """Also for the locks of other tasks on the loop, whose leases nothing renews meanwhile."""
    worker = OutcomeConfirmations(never_asked, never_asked, Interceptor())
    one = process("blocking", "other", lease_seconds=0.6)
    gate = Gate()

    async def wait() -> None:
        async with one.locks.resource("stock").acquire(on_lost="flag") as lease:
            await gate.pass_through()
            await until(lambda: lease.is_lost)

    async def block() -> None:
        async with one.locks.resource("orders").acquire(on_lost="flag"):
            time.sleep(1.5)  # noqa: ASYNC251 - what the test is about

    async with worker.running():
        other = start(one.run(attempt("r2", task="other"), wait))
        await gate.reached()
        gate.open()
        await start(one.run(attempt("r1", task="blocking"), block))
        await other
    lost = {each["task"]: each for each in logs.named("mageflow.lock.lease_lost")}
    assert {task: each["lock"] for task, each in lost.items()} == {"blocking": "orders", "other": "stock"}
    assert all(each["loop_blocked_s"] > 1.0 for each in lost.values()), lost
    for lock in ("orders", "stock"):
        assert one.samples.value("mageflow_lock_lease_renewals_total", lock=lock, result="lost") == 1


async def never_asked(_task_run_id: str, _attempt: int) -> None:
    """Hatchet's answer about an attempt: no test of this file has one."""


async def test_resource_keys_appear_in_no_signal(process: Make, spans: SpanCapture, logs: LogCapture) -> None:
    """Not in samples, spans, logs or the report; as a hash that is the same everywhere."""
    one = process("writer")
    orders = one.locks.resource("orders")

    async def ask() -> None:
        async with orders.acquire(CANARY, timeout=timedelta(seconds=1.3)):
            pass

    async def hold() -> None:
        async with orders.acquire(CANARY):
            with pytest.raises(LockTimeoutError):
                await start(one.run(attempt("r2", task="writer"), ask))
            report = await one.locks.snapshot()
            assert CANARY not in str(report.document())
            assert report.holders[0].resource == logs.one("mageflow.lock.waiting")["resource"] != ""

    await start(one.run(attempt("r1", task="writer"), hold))
    hashed = logs.one("mageflow.lock.waiting")["resource"]
    assert CANARY not in str(one.samples)
    assert CANARY not in str([dict(each) for each in logs])
    exported = [str(span.attributes) + str([(e.name, e.attributes) for e in span.events]) for span in spans]
    assert not [each for each in exported if CANARY in each]
    assert {span.attributes["mageflow.lock.resource"] for span in spans.named("acquire orders")} == {hashed}


class Background(Interceptor):
    """Records the context in which renewals are published."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    def event(self, event: Event) -> None:
        if isinstance(event, LeaseRenewal):
            self.seen.append(current_attempt.get())
            self.seen.append(trace.get_current_span().get_span_context().is_valid)
            self.seen.append(structlog.contextvars.get_contextvars())


async def test_background_work_belongs_to_no_run(process: Make, services: Services) -> None:
    """Renewals start inside a run and outlive it: they have none of its context."""
    one = process("writer")
    background = Background()
    one.locks = services(InterceptorChain([background, one.telemetry.interceptor]), lease_seconds=3.0)

    async def hold() -> None:
        async with one.locks.resource("orders").acquire():
            await until(lambda: background.seen)

    await start(one.run(attempt("r1", task="writer"), hold))
    assert background.seen[:3] == [None, False, {}]
