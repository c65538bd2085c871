"""The processes of the demo: a Valkey server, an engine and a worker, all on this machine."""

import json
import time
import urllib.request
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from mageflow.engine import LocalEngine
from mageflow.errors import EngineError
from mageflow.telemetry.names import metrics
from mageflow.testing import EmbeddedValkey, Samples, WorkerProcess, samples

__all__ = ["STOPPING", "Services", "start_services"]

STOPPING = "Stopping: the worker ends its tasks, then engine and Valkey stop. This takes a few seconds."
"""What is said at once on Ctrl-C."""

_READY_SECONDS = 30.0
_COUNTED_SECONDS = 20.0
_OUTPUT_LINES = 20


@dataclass(frozen=True, slots=True)
class Services:
    """The running processes and the files they write."""

    valkey: EmbeddedValkey
    engine: LocalEngine
    worker: WorkerProcess
    metrics_url: str
    directory: Path
    """The worker writes ``worker.log`` and ``worker-spans.jsonl``, this process ``demo-spans.jsonl``."""

    def exposition(self) -> str:
        """The body of the worker's ``/metrics``.

        Raises:
            EngineError: The worker has ended. The message has the end of its output.
        """
        try:
            with urllib.request.urlopen(self.metrics_url, timeout=5) as response:  # noqa: S310 - our own worker
                return response.read().decode()
        except OSError as error:
            raise EngineError(
                _failure(f"the worker does not answer at {self.metrics_url} ({error})", self.worker)
            ) from error

    def samples(self) -> Samples:
        """The worker's metrics now.

        Raises:
            EngineError: The worker has ended.
        """
        return samples(self.exposition())

    def samples_after(self, attempts: int) -> Samples:
        """The worker's metrics when it has counted this many attempts, or after 20 s.

        A result can arrive here before the worker has counted its attempt.

        Raises:
            EngineError: The worker has ended.
        """
        deadline = time.monotonic() + _COUNTED_SECONDS
        while (found := self.samples()).total(metrics.TASK_RUNS.name) < attempts and time.monotonic() < deadline:
            time.sleep(0.1)
        return found


@contextmanager
def start_services(directory: Path, report: Callable[[str], None]) -> Generator[Services]:
    """Start all processes for the length of the block.

    Args:
        directory: Where they write their spans and logs.
        report: Called with one line of text when a process is ready.

    Raises:
        EngineError: The engine or the worker did not start.
        StoreUnavailableError: Valkey did not start.
        ConfigurationError: The extra ``local`` is not installed.
    """
    with ThreadPoolExecutor(1) as pool:
        # The import of the SDK takes a second or two. It runs while the processes start.
        sdk = pool.submit(import_module, "hatchet_sdk")
        with EmbeddedValkey() as valkey, LocalEngine() as engine:
            report(f"Valkey on port {valkey.port}, engine on {engine.handshake.grpc_address}")
            worker = WorkerProcess(
                engine,
                "mageflow.cli.demo.shop.worker",
                *("--spans", str(directory / "worker-spans.jsonl")),
                output=directory / "worker.log",
                environment={
                    "MAGEFLOW_REDIS_URL": valkey.url,
                    "MAGEFLOW_METRICS_SD_DIR": str(directory / "targets"),
                },
            )
            with worker:
                url = _metrics_url(directory / "targets", worker)
                report(f"worker {worker.pid} is registered and serves {url}")
                sdk.result()
                yield Services(valkey, engine, worker, url, directory)


def _metrics_url(targets: Path, worker: WorkerProcess) -> str:
    """The URL in the Prometheus ``file_sd`` entry that the worker writes."""
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline and worker.returncode is None:
        for entry in targets.glob("*.json") if targets.exists() else ():
            found = json.loads(entry.read_text("utf-8"))
            return f"http://{found[0]['targets'][0]}/metrics"
        time.sleep(0.05)
    raise EngineError(_failure("the worker serves no metrics", worker))


def _failure(what: str, worker: WorkerProcess) -> str:
    output = "\n".join(worker.output().splitlines()[-_OUTPUT_LINES:])
    return f"{what}:\n{output}"
