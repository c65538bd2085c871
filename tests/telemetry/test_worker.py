"""A worker's telemetry from start to stop, on a real event loop and real sockets."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from mageflow.config import Settings
from mageflow.interceptors import Attempt, ClientCreated, LockDeclared, WorkerDraining, WorkerInfo
from mageflow.telemetry.worker import WorkerTelemetry
from mageflow.testing import samples
from tests.telemetry.conftest import STAGGERED, TASK, Bench
from tests.telemetry.test_exposition import get


def worker_of(bench: Bench, name: str = "mailer", **facts: Any) -> WorkerTelemetry:
    slots = {"default": 10, "durable": 3}
    return bench.interceptor.worker(WorkerInfo(name, slots, [TASK, STAGGERED], **facts))


def entries(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.02)


@pytest.fixture
def free_range() -> int:
    """The first of eight ports that are free together."""
    for first in range(28100, 60000, 8):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + 8):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
    raise AssertionError("no eight free ports in a row")


async def test_a_worker_says_what_it_is(make_bench):
    """Info, slots, zeros for what it serves, heartbeat and lag, and one record with where to look."""
    bench = make_bench(metrics_port=0)
    bench.interceptor.event(ClientCreated("localhost", 7070, "staging_", nullcontext))
    async with worker_of(bench) as worker:
        await until(lambda: bench.samples.total("mageflow_event_loop_lag_seconds_count") > 0)
        status, _, body = await asyncio.to_thread(get, worker.endpoint.url)
        health = await asyncio.to_thread(get, worker.endpoint.url.replace("/metrics", "/healthz"))

    assert (status, health[0]) == (200, 200)
    seen = samples(body)
    assert (
        seen.total("mageflow_worker_info", worker="mailer", hatchet_sdk="1.43.1", hatchet_namespace="staging_") == 1.0
    )
    assert seen.by("pool", "mageflow_worker_slots") == {"default": 10.0, "durable": 3.0}
    assert seen.by("pool", "mageflow_worker_slots_used") == {"default": 0.0, "durable": 0.0}
    assert seen.value("mageflow_tasks_near_timeout", task="send") == 0.0
    assert seen.value("mageflow_task_runs_total", task="crowd", outcome="failed") == 0.0
    assert seen.value("mageflow_stagger_window_seconds", task="crowd") == 3.0
    assert bench.logs.names == ["mageflow.metrics.listening", "mageflow.worker.started", "mageflow.worker.stopping"]
    started = bench.logs.one("mageflow.worker.started")
    assert started["metrics_url"] == f"http://127.0.0.1:{bench.logs.events[0]['port']}/metrics"
    assert started["tasks"] == ["send", "crowd"]
    assert started["slots"] == {"default": 10, "durable": 3}
    assert started["hatchet_instrumentor"] is False


async def test_a_worker_that_is_asked_to_stop_says_what_it_waits_for(make_bench):
    """The attempts by task and phase, when it begins to stop."""
    bench = make_bench(metrics_port=0)
    async with worker_of(bench):
        attempts = [bench.attempt(TASK), bench.attempt(TASK), bench.attempt(STAGGERED)]
        with contextlib.ExitStack() as running:
            for each in attempts:
                running.enter_context(bench.interceptor.attempt(each))
            attempts[1].enter("lock_wait", "lock_wait")
            bench.interceptor.event(WorkerDraining("mailer"))

    draining = bench.logs.one("mageflow.worker.draining")
    assert (draining["level"], draining["worker"], draining["in_flight"]) == ("info", "mailer", 3)
    assert draining["tasks"] == {"send": {"running": 1, "lock_wait": 1}, "crowd": {"running": 1}}


async def test_what_is_declared_is_counted_from_zero_before_anything_happens(make_bench):
    """Locks without a request, workflows without an enqueue: `increase()` sees their first event."""
    bench = make_bench(metrics_port=0)
    bench.interceptor.event(LockDeclared("ledger"))
    async with worker_of(bench) as worker:
        _, _, body = await asyncio.to_thread(get, worker.endpoint.url)

    seen = samples(body)
    assert set(seen.by("result", "mageflow_lock_lease_renewals_total", lock="ledger").values()) == {0.0}
    assert set(seen.by("outcome", "mageflow_lock_acquisitions_total", lock="ledger").values()) == {0.0}
    assert seen.total("mageflow_lock_wait_seconds_count") == 0.0
    assert seen.by("source", "mageflow_tasks_enqueued_total", task="send-workflow")
    assert seen.by("result", "mageflow_tasks_enqueued_total", task="__event__") == {"ok": 0.0, "error": 0.0}
    assert seen.by("label", "mageflow_telemetry_dropped_label_values_total")["__series__"] == 0.0


async def test_a_stopped_worker_leaves_nothing_behind(make_bench, tmp_path: Path):
    """The port is free, the discovery file is gone, the gauges are, and no task of ours runs on."""
    bench = make_bench(metrics_port=0, metrics_sd_dir=tmp_path)
    async with worker_of(bench) as worker:
        port = worker.endpoint.port
        assert entries(tmp_path) == [f"mageflow-{socket.gethostname()}-{port}.json"]

    assert entries(tmp_path) == []
    assert bench.samples.total("mageflow_task_timeout_seconds") == 0.0
    assert [task for task in asyncio.all_tasks() if task.get_name().startswith("mageflow")] == []
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))


async def test_workers_of_one_host_climb_the_ladder(make_bench, free_range: int):
    """Lowest free port first; a worker that comes back finds the gap it left."""
    settings = {"metrics_port": free_range, "metrics_port_span": 8}
    benches = [make_bench(**settings) for _ in range(3)]
    async with contextlib.AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(worker_of(bench)) for bench in benches]
        ports = [worker.endpoint.port for worker in workers]
        assert ports == sorted(ports)
        assert len(set(ports)) == 3
        await workers[1].__aexit__(None, None, None)
        async with worker_of(make_bench(**settings)) as heir:
            assert heir.endpoint.port == ports[1]


async def test_a_killed_worker_gets_its_own_port_back(make_bench, tmp_path: Path, free_range: int):
    """By its name in the directory, although a lower port is free, too."""
    program = f"""
import asyncio, os, signal
from mageflow.config import Settings
from mageflow.interceptors import WorkerInfo
from mageflow.telemetry import Telemetry
async def main():
    settings = Settings(metrics_port={free_range + 1}, metrics_port_span=7, metrics_sd_dir={str(tmp_path)!r})
    async with Telemetry(settings).interceptor.worker(WorkerInfo("mailer", {{"default": 1}})) as worker:
        print(worker.endpoint.port, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    run = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert run.returncode == -9, run.stderr
    port = int(run.stdout)
    assert port != free_range

    bench = make_bench(metrics_port=free_range, metrics_port_span=8, metrics_sd_dir=tmp_path)
    async with worker_of(bench, "mailer") as worker:
        assert worker.endpoint.port == port
        assert entries(tmp_path) == [f"mageflow-{socket.gethostname()}-{port}.json"]


async def test_no_free_port_never_stops_a_worker(make_bench):
    """It is said, and everything else works."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        bench = make_bench(metrics_port=taken.getsockname()[1], metrics_port_span=1)
        async with worker_of(bench) as worker:
            assert worker.endpoint is None
            bench.run(bench.attempt(), outcome="succeeded")

    failed = bench.logs.one("mageflow.metrics.bind_failed")
    assert (failed["level"], failed["addr"], failed["ports_tried"]) == ("error", "127.0.0.1", 1)
    assert bench.samples.value("mageflow_task_runs_total", task="send", outcome="succeeded") == 1.0


async def test_a_directory_that_cannot_be_written_never_stops_a_worker(make_bench, tmp_path: Path):
    """Discovery fails, the endpoint serves."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    bench = make_bench(metrics_port=0, metrics_sd_dir=blocked)
    async with worker_of(bench) as worker:
        assert (await asyncio.to_thread(get, worker.endpoint.url))[0] == 200

    assert bench.telemetry.recorder.guards.exposition.total == 1


async def test_an_endpoint_that_cannot_start_never_stops_a_worker(make_bench, monkeypatch: pytest.MonkeyPatch):
    """The block runs whichever part raises."""

    def broken(*arguments: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr("mageflow.telemetry.serving.bind", broken)
    bench = make_bench()
    async with worker_of(bench) as worker:
        assert worker.endpoint is None

    assert bench.samples.value("mageflow_telemetry_errors_total", signal="exposition") == 1.0


async def test_a_blocked_loop_shows_in_lag_and_health(make_bench, monkeypatch: pytest.MonkeyPatch):
    """The lag is how late the loop wakes up; the endpoint answers while it is blocked."""
    monkeypatch.setattr("mageflow.telemetry.exposition.STALE_AFTER_SECONDS", 0.3)
    bench = make_bench(metrics_port=0)
    async with worker_of(bench) as worker:
        url = worker.endpoint.url.replace("/metrics", "/healthz")
        await asyncio.sleep(0.05)
        time.sleep(1.0)  # noqa: ASYNC251 - blocking the loop is the point
        assert get(url)[0] == 503  # still in the loop: it is blocked until the answer has come
        await until(lambda: bench.samples.total("mageflow_event_loop_lag_seconds_sum") > 0.3)


async def test_an_attempt_near_its_timeout_is_logged_once(make_bench):
    """With its ids, how much it has used and what is left."""
    bench = make_bench(metrics_port=0)
    attempt: Attempt = bench.attempt()
    async with worker_of(bench):
        with bench.interceptor.attempt(attempt):
            bench.clock.now += 27.0
            await until(lambda: "mageflow.task.near_timeout" in bench.logs.names)
            lags = bench.samples.total("mageflow_event_loop_lag_seconds_count")
            await until(lambda: bench.samples.total("mageflow_event_loop_lag_seconds_count") > lags)

    recorded = bench.logs.one("mageflow.task.near_timeout")
    assert (recorded["used_ratio"], recorded["remaining_s"]) == (0.9, 3.0)
    assert (recorded["task"], recorded["run_id"], recorded["attempt"]) == ("send", "run-1", 1)


async def test_the_endpoint_lingers_when_asked(make_bench):
    """Long enough for a last scrape."""
    bench = make_bench(metrics_port=0, metrics_linger_s=2.0)
    worker = worker_of(bench)
    await worker.__aenter__()
    url = worker.endpoint.url
    leaving = asyncio.create_task(worker.__aexit__(None, None, None))
    await until(lambda: "mageflow.worker.stopping" in bench.logs.names)
    assert (await asyncio.to_thread(get, url))[0] == 200
    await leaving
    with pytest.raises(OSError, match="refused"):
        await asyncio.to_thread(get, url)


async def test_multiprocess_mode_is_warned_of(make_bench, monkeypatch: pytest.MonkeyPatch):
    """Exemplars are lost in it."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "/nowhere")
    bench = make_bench(metrics_port=0)
    async with worker_of(bench):
        pass

    assert bench.logs.one("mageflow.metrics.multiproc_env")["level"] == "warning"


async def test_without_metrics_there_is_no_endpoint(make_bench):
    """No socket, no series; the worker is still announced."""
    bench = make_bench(metrics=False)
    async with worker_of(bench) as worker:
        assert worker.endpoint is None

    assert len(bench.samples) == 0
    assert bench.logs.one("mageflow.worker.started")["metrics_url"] == ""


async def test_the_lock_report_of_the_worker_is_served(make_bench):
    """``/debug/locks`` has what the report says when it is read."""
    bench = make_bench(metrics_port=0)
    async with worker_of(bench, lock_report=lambda: {"holders": ["me"]}) as worker:
        _, _, body = await asyncio.to_thread(get, worker.endpoint.url.replace("/metrics", "/debug/locks"))

    assert json.loads(body) == {"holders": ["me"]}


async def test_the_runs_of_the_worker_are_served(make_bench):
    """``/debug/runs`` has the attempts of this process."""
    bench = make_bench(metrics_port=0)
    async with worker_of(bench) as worker:
        bench.run(bench.attempt())
        _, _, body = await asyncio.to_thread(get, worker.endpoint.url.replace("/metrics", "/debug/runs"))

    assert [each["task"] for each in json.loads(body)["ended"]] == ["send"]


async def test_a_scrape_of_a_large_registry_does_not_stall_the_loop(make_bench):
    """Rendering ten thousand series holds the interpreter; the loop still turns between slices of it."""
    from prometheus_client import Gauge

    bench = make_bench(metrics_port=0)
    gauge = Gauge("users_own", "h", ["n"], registry=bench.registry)
    for number in range(10_000):
        gauge.labels(str(number)).set(number)
    stalls: list[float] = []
    async with worker_of(bench) as worker:
        for _ in range(5):
            scrape = asyncio.create_task(asyncio.to_thread(get, worker.endpoint.url))
            worst = 0.0
            while not scrape.done():
                before = time.perf_counter()
                await asyncio.sleep(0)
                worst = max(worst, time.perf_counter() - before)
            assert (await scrape)[0] == 200
            stalls.append(worst)

    print(f"worst stall of the loop, by scrape: {', '.join(f'{stall * 1e3:.1f} ms' for stall in stalls)}")
    # The quietest of five: on a busy machine the others measure the neighbours.
    assert min(stalls) < 0.25


def test_defaults_are_those_of_the_design():
    """Loopback only, 18001 upwards."""
    settings = Settings()
    assert (settings.metrics_addr, settings.metrics_port, settings.metrics_port_span) == ("127.0.0.1", 18001, 32)


async def test_twenty_restarts_keep_the_port(make_bench, free_range: int):
    """``instance`` stays what it was, with a neighbour above that never moved."""
    settings = {"metrics_port": free_range, "metrics_port_span": 8}
    ports: list[int] = []
    first = worker_of(make_bench(**settings))
    await first.__aenter__()
    async with worker_of(make_bench(**settings)) as neighbour:
        await first.__aexit__(None, None, None)
        for _ in range(20):
            async with worker_of(make_bench(**settings)) as worker:
                ports.append(worker.endpoint.port)

    assert set(ports) == {free_range}
    assert neighbour.endpoint is None, "stopped with its block"


def test_a_producer_counts_in_multiprocess_mode(tmp_path: Path):
    """A web application under a forking server: its enqueues join its registry's files, no port, no thread."""
    program = """
import os, threading
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from mageflow.config import Settings
from mageflow.interceptors import Enqueue, EnqueueItem, TaskDeclared, TaskInfo
from mageflow.telemetry import Telemetry
telemetry = Telemetry(Settings())
telemetry.interceptor.event(TaskDeclared(TaskInfo("send", "send", 30.0, 0)))
with telemetry.interceptor.enqueue(Enqueue("run", [EnqueueItem("send", {})])):
    pass
assert threading.active_count() == 1
registry = CollectorRegistry()
MultiProcessCollector(registry)
print(generate_latest(registry).decode())
"""
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert samples(ran.stdout).value("mageflow_tasks_enqueued_total", task="send", source="direct", result="ok") == 1.0
