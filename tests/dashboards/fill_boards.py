"""Runs the stack's own worker for a while on the local engine, and has the boards drawn from what it did.

    python -m tests.dashboards.fill_boards --seconds 240 --python PYTHON_WITH_MATPLOTLIB --out docs/boards

A development script: this is how the pictures in the documentation are made.
"""

import argparse
import os
import subprocess
import tempfile
import time
from pathlib import Path

from mageflow.engine import LocalEngine
from mageflow.grafana import find_bundle
from mageflow.testing import WorkerProcess
from mageflow.testing.valkey import EmbeddedValkey
from tests.dashboards.prometheus_server import PrometheusServer

ROOT = Path(__file__).parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--python", required=True, help="an interpreter that has matplotlib and Pillow")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/boards")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, LocalEngine() as engine, EmbeddedValkey() as valkey:
        folder = Path(name)
        with PrometheusServer(folder, find_bundle().rules) as server:
            environment = {
                "MAGEFLOW_REDIS_URL": valkey.url,
                "MAGEFLOW_METRICS_SD_DIR": str(server.sd_dir),
                "MAGEFLOW_METRICS_PORT": "0",
            }
            driver = ROOT / "dashboards/stack/driver.py"
            with WorkerProcess(engine, driver, output=folder / "worker.log", environment=environment) as worker:
                moments = _wait(server, chosen.seconds)
                _draw(chosen.python, server, chosen.seconds, chosen.out, moments)
                print("\n".join(worker.output().splitlines()[-3:]))


def _wait(server: PrometheusServer, seconds: float) -> list[float]:
    """Wait, and note the times at which most lock requests waited: what instant panels are best asked about."""
    end = time.time() + seconds
    waits: list[tuple[float, float]] = []
    while time.time() < end:
        time.sleep(1)
        waits.append((server.value("sum(mageflow_lock_wait_edges)"), time.time()))
    return [at for _, at in sorted(waits, reverse=True)[:3]]


def _draw(python: str, server: PrometheusServer, seconds: float, out: Path, moments: list[float]) -> None:
    command = [
        python, "-m", "tests.dashboards.draw_boards", "--prometheus", server.url, "--out", str(out),
        "--range", f"{seconds:.0f}", "--rate-interval", "20",
    ]  # fmt: skip
    for moment in moments:
        command += ["--instant", f"{moment:.3f}"]
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


if __name__ == "__main__":
    main()
