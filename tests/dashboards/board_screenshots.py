"""Runs the demo worker with traffic on the local engine, and takes screenshots of the boards with its data.

    (cd tests/dashboards/viewer && npm install --ignore-scripts)
    python -m tests.dashboards.board_screenshots --seconds 900 --out docs/boards

A development script: it makes the pictures of the documentation. It needs Node.js, Chromium and Prometheus, and for
the panels of logs a Loki. ``tests/dashboards/viewer/README.md`` describes how the boards are rendered.
"""

import argparse
import shutil
import subprocess
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

from mageflow.dashboards import find_bundle
from mageflow.engine import LocalEngine
from mageflow.testing import WorkerProcess
from mageflow.testing.valkey import EmbeddedValkey
from tests.dashboards.logs_live import running_loki
from tests.dashboards.prometheus_server import PrometheusServer

ROOT = Path(__file__).parents[2]
VIEWER = Path(__file__).parent / "viewer"
_WAITS = "count(sum by (waiter_task, lock) (mageflow_lock_wait_edges) > 0)"
_MANY = 3
"""Edges of a wait-for graph that is worth a picture: waits of different tasks or for different locks."""


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=float, default=900)
    parser.add_argument("--loki", default=shutil.which("loki"), help="the program; without it no panels of logs")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/boards")
    chosen = parser.parse_args()
    subprocess.run(["node", "build.mjs"], cwd=VIEWER, check=True)
    with tempfile.TemporaryDirectory() as name, LocalEngine() as engine, EmbeddedValkey() as valkey:
        folder = Path(name)
        store = running_loki(chosen.loki, folder) if chosen.loki else nullcontext()
        with PrometheusServer(folder, find_bundle().rules) as server, store as loki:
            environment = {
                "MAGEFLOW_REDIS_URL": valkey.url,
                "MAGEFLOW_METRICS_SD_DIR": str(server.sd_dir),
                "MAGEFLOW_METRICS_PORT": "0",
            }
            if loki is not None:
                environment["OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"] = f"{loki.url}/otlp/v1/logs"
            arguments = ("mageflow.cli.demo.shop.worker", "--traffic")
            with WorkerProcess(engine, *arguments, output=folder / "worker.log", environment=environment) as worker:
                time.sleep(chosen.seconds)
                take_pictures(server.url, loki and loki.url, _moment(server), chosen.seconds, chosen.out)
                print("\n".join(worker.output().splitlines()[-3:]))


def _moment(server: PrometheusServer) -> float:
    """Wait until many runs wait for locks, and return this time, for the panels that show one moment."""
    end = time.time() + 120
    while time.time() < end and server.value(_WAITS) < _MANY:
        time.sleep(1)
    return time.time()


def take_pictures(prometheus: str, loki: str | None, until: float, seconds: float, out: Path) -> None:
    """Make one PNG for each board, with the data of the seconds before ``until``."""
    query = f"from={(until - seconds) * 1000:.0f}&to={until * 1000:.0f}"
    command = ["node", "pictures.mjs", "--prometheus", prometheus, "--query", query, "--out", str(out.resolve())]
    if loki is not None:
        command += ["--loki", loki]
    subprocess.run([*command, "--boards", str(find_bundle().root / "grafana")], cwd=VIEWER, check=True)


if __name__ == "__main__":
    main()
