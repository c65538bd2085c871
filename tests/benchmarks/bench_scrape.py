"""How many series a worker exposes, and what a scrape of it costs, at 10, 100 and 1,000 tasks.

Run: ``python tests/benchmarks/bench_scrape.py``.

The CPU time is that of the endpoint's thread; the event loop that runs the tasks takes no part in a scrape. Half of the
last columns is without work: every task is declared, and none has run. In the others each task has been sent, has run
and has failed once.
"""

import argparse
import gzip
import time
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from mageflow.config import Settings
from mageflow.interceptors import TaskDeclared, TaskInfo
from mageflow.telemetry import Telemetry
from mageflow.telemetry.exposition import EndpointApp
from mageflow.telemetry.guards import Guards
from mageflow.telemetry.names import metrics

SIZES = (10, 100, 1000)
ROUNDS = 5
ACCEPT = "application/vnd.google.protobuf;q=0.7,application/openmetrics-text;version=1.0.0;q=0.6"


@dataclass(frozen=True, slots=True)
class Cost:
    """What one scrape of a worker with so many tasks is."""

    tasks: int
    series: int
    per_task: float
    """Series without those of the process itself."""
    cpu_seconds: float
    bytes: int
    refused: int
    """Observations and series that the limit did not let in."""


def worker_with(tasks: int, *, has_run: bool) -> tuple[CollectorRegistry, Telemetry]:
    """The telemetry of a worker that serves these tasks, on a registry of its own."""
    registry = CollectorRegistry()
    telemetry = Telemetry(Settings(), registry=registry)
    instruments = telemetry.recorder.instruments
    served = tuple(TaskInfo(f"shop.task-{number}", f"shop.task-{number}", 60.0, 2) for number in range(tasks))
    for info in served:
        telemetry.interceptor.event(TaskDeclared(info))
        instruments.zero_worker(info.name, is_staggered=False)
        instruments.zero_producer(info.workflow_name)
    telemetry.recorder.live.served = served
    for info in served if has_run else ():
        instruments.inc(metrics.TASKS_ENQUEUED, info.name, "direct", "ok")
        instruments.inc(metrics.TASK_RUNS, info.name, "succeeded")
        instruments.inc(metrics.TASK_RUNS, info.name, "failed")
        instruments.inc(metrics.TASK_FAILURES, info.name, "ValueError")
        instruments.inc(metrics.TASK_STAGE_SECONDS, info.name, "body", by=0.25)
        instruments.observe(metrics.TASK_QUEUE_WAIT, 0.02, info.name)
        instruments.observe(metrics.TASK_RUN_DURATION, 0.25, info.name, "ok")
        instruments.observe(metrics.TASK_RUN_DURATION, 0.25, info.name, "error")
        instruments.observe(metrics.TASK_TIMEOUT_USED, 0.2, info.name)
    return registry, telemetry


def scrape(app: EndpointApp) -> bytes:
    """One answer of the endpoint to a Prometheus with zero ingestion, compressed as it asks for."""
    environ = {"PATH_INFO": "/metrics", "HTTP_ACCEPT": ACCEPT, "HTTP_ACCEPT_ENCODING": "gzip"}
    return b"".join(app(environ, lambda *_: lambda _: None))  # type: ignore[arg-type,return-value]


def cost_of(tasks: int, *, has_run: bool) -> Cost:
    """The cost of the best of some scrapes."""
    registry, telemetry = worker_with(tasks, has_run=has_run)
    app = EndpointApp(
        registry, seconds_since_tick=lambda: 0.0, lock_report=dict, guard=Guards(lambda _: None).exposition
    )
    taken: list[float] = []
    body = b""
    for _ in range(ROUNDS):
        before = time.thread_time()
        body = scrape(app)
        taken.append(time.thread_time() - before)
    text = gzip.decompress(body).decode()
    lines = [line for line in text.splitlines() if not line.startswith("#") and "_created" not in line]
    refused = next((float(line.split()[1]) for line in lines if 'label="__series__"' in line), 0.0)
    of_tasks = sum(1 for line in lines if 'task="shop.task-' in line)
    del telemetry
    return Cost(tasks, len(lines), of_tasks / tasks, min(taken), len(body), int(refused))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, nargs="+", default=SIZES, help="how many tasks a worker serves")
    args = parser.parse_args()
    print(f"{'tasks':>6} {'state':8} {'series':>8} {'per task':>9} {'CPU ms':>8} {'KiB':>7} {'refused':>8}")
    for has_run in (False, True):
        for tasks in args.tasks:
            cost = cost_of(tasks, has_run=has_run)
            print(
                f"{cost.tasks:>6} {'has run' if has_run else 'idle':8} {cost.series:>8} {cost.per_task:>9.1f} "
                f"{cost.cpu_seconds * 1e3:>8.1f} {cost.bytes / 1024:>7.0f} {cost.refused:>8}"
            )


if __name__ == "__main__":
    main()
