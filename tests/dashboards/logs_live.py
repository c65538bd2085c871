"""Sends the log lines of a real worker to a real Loki, by OTLP, and runs every log query of the boards.

    python -m tests.dashboards.logs_live --loki /path/to/loki

A command and no test of the suite: Loki is in no package index, so not every machine has it. It is started with the
configuration of the stack, on a free port and in a temporary folder.
"""

import argparse
import json
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

from mageflow.dashboards import find_bundle
from mageflow.engine import LocalEngine
from mageflow.testing import WorkerProcess
from mageflow.testing.valkey import EmbeddedValkey

ROOT = Path(__file__).parents[2]
DEADLOCK = "mageflow.deadlock.detected"


class Loki:
    """A running Loki."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expr: str, seconds: float, *, instant: bool) -> list[dict[str, Any]]:
        """The result of a query over the last seconds."""
        filled = expr.replace("$__range", f"{seconds:.0f}s")
        for variable in ("task", "lock", "flow_name"):
            filled = filled.replace(f'"${variable}"', '".+"')
        now = time.time()
        span = {"time": f"{now:.0f}"} if instant else {"start": f"{now - seconds:.0f}", "limit": "200"}
        path = "query" if instant else "query_range"
        url = f"{self.url}/loki/api/v1/{path}?{urlencode({'query': filled, **span})}"
        with urlopen(url, timeout=30) as answer:  # noqa: S310 - the Loki that this program has started
            return json.load(answer)["data"]["result"]


@contextmanager
def running_loki(program: str, folder: Path) -> Generator[Loki]:
    """Start Loki with the configuration of the stack, in a folder."""
    with socket.create_server(("127.0.0.1", 0)) as free, socket.create_server(("127.0.0.1", 0)) as other:
        port, grpc = free.getsockname()[1], other.getsockname()[1]
    text = (ROOT / "dashboards/stack/loki.yml").read_text(encoding="utf-8").replace("/loki", str(folder / "loki"))
    listen = f"http_listen_port: {port}\n  grpc_listen_port: {grpc}"
    (folder / "loki.yml").write_text(text.replace("http_listen_port: 3100", listen), encoding="utf-8")
    with (folder / "loki.log").open("w") as output:
        process = subprocess.Popen([program, f"-config.file={folder / 'loki.yml'}"], stdout=output, stderr=output)
    try:
        _wait(lambda: _is_ready(f"http://127.0.0.1:{port}/ready"), 120, "Loki is not ready")
        health = [program, "-health", f"-health.url=http://127.0.0.1:{port}/ready"]
        print("health check:", subprocess.run(health, check=True, capture_output=True, text=True).stdout.strip())
        yield Loki(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(30)


def _is_ready(url: str) -> bool:
    try:
        with urlopen(url, timeout=5) as answer:  # noqa: S310 - as above
            return answer.status == 200
    except (URLError, OSError):
        return False


def _wait(look: Callable[[], Any], seconds: float, complaint: str) -> Any:
    end = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > end:
            raise SystemExit(complaint)
        time.sleep(1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("--loki", default=shutil.which("loki"), help="the program; by default loki on the PATH")
    parser.add_argument("--seconds", type=float, default=300, help="how long to wait for a deadlock at most")
    chosen = parser.parse_args()
    if not chosen.loki:
        parser.error("loki is not on the PATH: give --loki")
    with (
        tempfile.TemporaryDirectory() as name,
        running_loki(chosen.loki, Path(name)) as loki,
        LocalEngine() as engine,
        EmbeddedValkey() as valkey,
    ):
        environment = {
            "MAGEFLOW_REDIS_URL": valkey.url,
            "MAGEFLOW_METRICS_PORT": "0",
            "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": f"{loki.url}/otlp/v1/logs",
        }
        output = Path(name) / "worker.log"
        arguments = ("mageflow.cli.demo.shop.worker", "--traffic")
        with WorkerProcess(engine, *arguments, output=output, environment=environment):
            found = '{service_name=~".+"} |= `' + DEADLOCK + "`"
            _wait(lambda: loki.query(found, 900, instant=False), chosen.seconds, "no deadlock arrived")
            time.sleep(3)
            examine(loki)
        compare(loki, output.read_text(encoding="utf-8").splitlines())


def examine(loki: Loki) -> None:
    """Run every log query of the boards, and that of the link from a trace; exit if one finds nothing."""
    trace_id = ""
    for path in find_bundle().boards:
        board = json.loads(path.read_text(encoding="utf-8"))
        for panel in board["panels"]:
            if panel.get("datasource", {}).get("type") != "loki":
                continue
            (target,) = panel["targets"]
            result = loki.query(target["expr"], 900, instant=target["queryType"] == "instant")
            if not result:
                raise SystemExit(f"{panel['title']} finds nothing: {target['expr']}")
            if panel["type"] == "table":
                print(f"{board['uid']} / {panel['title']}: {len(result)} rows, for example {result[0]['metric']}")
                trace_id = result[0]["metric"]["trace"]
                continue
            lines = [value[1] for stream in result for value in stream["values"]]
            labels = result[0]["stream"]
            print(f"{board['uid']} / {panel['title']}: {len(lines)} lines, for example {lines[0]!r}")
            print("  labels for links:", {key: labels.get(key) for key in ("trace_id", "run_id", "level")})
    print("trace of a deadlock:", trace_id)


def compare(loki: Loki, printed: list[str]) -> None:
    """Exit if a line of mageflow is not in Loki, or is there twice."""
    wanted = sorted(line for line in printed if '"event": "mageflow.' in line)
    time.sleep(3)
    stored: list[str] = []
    result = loki.query('{service_name=~".+"} |= `"event": "mageflow.`', 900, instant=False)
    for stream in result:
        stored += [value[1] for value in stream["values"]]
    print(f"{len(wanted)} lines of mageflow printed, {len(stored)} of them read back (200 at most)")
    if not set(stored) <= set(wanted) or len(set(stored)) != min(len(wanted), 200):
        raise SystemExit("lines differ")


if __name__ == "__main__":
    main()
