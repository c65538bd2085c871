"""Everything the demo needs to run: a Valkey, an engine and a worker, each a real process on this machine."""

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
from mageflow.testing import EmbeddedValkey, Samples, WorkerProcess, samples

__all__ = ["Stage", "set_up"]

_READY_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Stage:
    """What is running, and where each part of it can be reached."""

    valkey: EmbeddedValkey
    engine: LocalEngine
    worker: WorkerProcess
    metrics_url: str
    worker_spans: Path
    own_spans: Path
    worker_log: Path

    def scrape(self) -> Samples:
        """What the worker's ``/metrics`` says now.

        Raises:
            EngineError: The worker has ended; the end of its output is in the message.
        """
        try:
            with urllib.request.urlopen(self.metrics_url, timeout=5) as response:  # noqa: S310 - our own worker
                return samples(response.read().decode())
        except OSError as error:
            words = "\n".join(self.worker.output().splitlines()[-20:])
            raise EngineError(f"the worker does not answer at {self.metrics_url} ({error}):\n{words}") from error


@contextmanager
def set_up(directory: Path, said: Callable[[str], None]) -> Generator[Stage]:
    """Start everything, and stop it again in the opposite order.

    Args:
        directory: Where the processes leave their spans and logs.
        said: Told each step, in a few words.

    Raises:
        EngineError: The engine or the worker did not start.
        StoreUnavailableError: Valkey did not start.
        ConfigurationError: The extra ``local`` is not installed.
    """
    with ThreadPoolExecutor(1) as pool:
        # The SDK takes a second or two to import: while the processes start.
        sdk = pool.submit(import_module, "hatchet_sdk")
        with EmbeddedValkey() as valkey, LocalEngine() as engine:
            said(f"Valkey on port {valkey.port}, engine on {engine.handshake.grpc_address}")
            worker = WorkerProcess(
                engine,
                "mageflow.cli.demo.worker",
                str(directory / "worker-spans.jsonl"),
                output=directory / "worker.log",
                environment=_environment(valkey, directory),
            )
            with worker:
                url = _metrics_url(directory / "targets", worker)
                said(f"worker {worker.pid} is registered and serves {url}")
                sdk.result()
                yield Stage(
                    valkey=valkey,
                    engine=engine,
                    worker=worker,
                    metrics_url=url,
                    worker_spans=directory / "worker-spans.jsonl",
                    own_spans=directory / "demo-spans.jsonl",
                    worker_log=directory / "worker.log",
                )


def _environment(valkey: EmbeddedValkey, directory: Path) -> dict[str, str]:
    return {
        "MAGEFLOW_REDIS_URL": valkey.url,
        "MAGEFLOW_METRICS_SD_DIR": str(directory / "targets"),
    }


def _metrics_url(targets: Path, worker: WorkerProcess) -> str:
    """Where the worker serves its metrics: it says so in its Prometheus ``file_sd`` entry."""
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        for entry in targets.glob("*.json") if targets.exists() else ():
            found = json.loads(entry.read_text("utf-8"))
            return f"http://{found[0]['targets'][0]}/metrics"
        if worker.returncode is not None:
            break
        time.sleep(0.05)
    words = "\n".join(worker.output().splitlines()[-20:])
    raise EngineError(f"the worker serves no metrics:\n{words}")
