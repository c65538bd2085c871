"""Telemetry of one worker: its endpoint, the sampler of its event loop, its gauges and its log events."""

import asyncio
import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from types import TracebackType
from typing import Self

from opentelemetry import trace

from mageflow.distribution import DISTRIBUTION
from mageflow.interceptors import WorkerDraining, WorkerInfo
from mageflow.telemetry import instrumentor
from mageflow.telemetry.exposition import Endpoint
from mageflow.telemetry.gauges import Sample
from mageflow.telemetry.log_delivery import delivered
from mageflow.telemetry.names import events, metrics
from mageflow.telemetry.recorder import Recorder
from mageflow.telemetry.serving import MetricsPort

__all__ = ["WorkerTelemetry", "report_draining"]

SAMPLE_EVERY_SECONDS = 0.5


class WorkerTelemetry:
    """Around the life of one worker. A failure in here does not stop the worker.

    Entered on the event loop that runs the tasks, left when the last task has ended. The endpoint serves until then
    and for `Settings.metrics_linger_s` longer.
    """

    def __init__(
        self,
        recorder: Recorder,
        call: WorkerInfo,
        *,
        zero_locks: Callable[[], None],
    ) -> None:
        self._recorder = recorder
        self._name = name = call.name
        self._slots = dict(call.slots)
        self._tasks = tuple(call.tasks)
        self._lock_report = call.lock_report
        self._zero_locks = zero_locks
        self._sampler: asyncio.Task[None] | None = None
        self._port = MetricsPort(recorder, name)
        self._last_tick = time.monotonic()
        self._logs = ExitStack()
        self._info = (name, _version(DISTRIBUTION), _version("hatchet-sdk"), platform.python_version())

    async def __aenter__(self) -> Self:
        """Start the endpoint and the sampler. What fails is logged, and the worker runs without it."""
        recorder, guards = self._recorder, self._recorder.guards
        for info in self._tasks:
            recorder.declare(info)
        self._logs.enter_context(delivered())
        self._tick()
        if recorder.settings.metrics:
            with guards.metric.catching("worker.start"):
                for info in self._tasks:
                    recorder.instruments.zero_worker(info.name, is_staggered=info.stagger_window_seconds is not None)
                recorder.zero_enqueues()
                self._zero_locks()
                recorder.instruments.gauges.add(self)
                recorder.live.served = (*recorder.live.served, *self._tasks)
            self._port.start(
                seconds_since_tick=self.seconds_since_tick,
                lock_report=self._lock_report,
                run_report=recorder.run_report,
            )
            if directory := os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
                recorder.log.emit(events.METRICS_MULTIPROC_ENV, directory=directory)
        self._sampler = asyncio.create_task(self._sample(), name="mageflow-telemetry-sampler")
        recorder.warn_of_exported_payloads()
        recorder.log.emit(
            events.WORKER_STARTED,
            worker=self._name,
            version=self._info[1],
            tasks=[info.name for info in self._tasks],
            slots=self._slots,
            metrics_url=self._port.url,
            hatchet_instrumentor=instrumentor.wraps_producer(),
        )
        return self

    @property
    def endpoint(self) -> Endpoint | None:
        """The bound endpoint; None when metrics are off or no port was free."""
        return self._port.endpoint

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the sampler and free the port."""
        recorder = self._recorder
        recorder.log.emit(events.WORKER_STOPPING, worker=self._name, in_flight=len(recorder.live))
        try:
            if self.endpoint is not None and recorder.settings.metrics_linger_s:
                await asyncio.sleep(recorder.settings.metrics_linger_s)
        finally:
            if self._sampler is not None:
                self._sampler.cancel()
                await asyncio.gather(self._sampler, return_exceptions=True)
            await asyncio.to_thread(self._port.stop)
            served = list(recorder.live.served)
            for info in self._tasks:
                if info in served:
                    served.remove(info)
            recorder.live.served = tuple(served)
            self._logs.close()

    # -- sampler -------------------------------------------------------------------------------------------------

    def seconds_since_tick(self) -> float:
        """Seconds since the event loop last ran the sampler. May be called from any thread."""
        return time.monotonic() - self._last_tick

    def _tick(self) -> None:
        self._last_tick = time.monotonic()

    async def _sample(self) -> None:
        recorder, guards = self._recorder, self._recorder.guards
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(SAMPLE_EVERY_SECONDS)
            lag = max(0.0, loop.time() - before - SAMPLE_EVERY_SECONDS)
            self._tick()
            if guards.metric.may_record:
                with guards.metric.catching("worker.sample"):
                    recorder.instruments.observe(metrics.EVENT_LOOP_LAG, lag)
            with guards.log.catching("worker.sample"):
                self._log_near_timeouts()

    def _log_near_timeouts(self) -> None:
        for live, used in self._recorder.live.near_timeout():
            if not live.near_timeout_logged:
                live.near_timeout_logged = True
                # The sampler runs outside of the attempt: use its span for the trace ids of the record.
                with trace.use_span(live.span, record_exception=False, set_status_on_exception=False):
                    self._recorder.log.emit(
                        events.TASK_NEAR_TIMEOUT,
                        used_ratio=round(used, 3),
                        remaining_s=round(live.attempt.remaining_seconds, 3),
                        **live.log_fields(),
                    )

    # -- gauges --------------------------------------------------------------------------------------------------

    def samples(self) -> Iterable[Sample]:
        """The worker's version and slots."""
        yield metrics.WORKER_INFO, (*self._info, self._recorder.namespace), 1.0
        for pool in metrics.POOLS:
            yield metrics.WORKER_SLOTS, (pool,), float(self._slots.get(pool, 0))


def report_draining(recorder: Recorder, event: WorkerDraining) -> None:
    """Log which attempts keep a worker that was asked to stop."""
    tasks: dict[str, Counter[str]] = {}
    for attempt in recorder.live.attempts():
        tasks.setdefault(attempt.task.name, Counter())[attempt.phase] += 1
    waits = {name: dict(phases) for name, phases in tasks.items()}
    recorder.log.emit(events.WORKER_DRAINING, worker=event.worker, in_flight=len(recorder.live), tasks=waits)


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""
