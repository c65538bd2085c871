"""A real Prometheus as a context manager: random job name, a scrape per second, exemplars, the shipped rules."""

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mageflow.dashboards.prometheus import PrometheusError, call_api
from mageflow.testing.ports import free_port
from tests.dashboards.shortened_rules import shortened

PROGRAM = os.environ.get("PROMETHEUS_PROGRAM") or shutil.which("prometheus")
"""A current one in ``PROMETHEUS_PROGRAM`` shows what an old one of the system cannot do."""

FEATURES = "--enable-feature=exemplar-storage,created-timestamp-zero-ingestion"
"""An old Prometheus ignores the second one, with a warning."""

WHY_NOT = "Prometheus is not installed (Debian: apt install prometheus)"


class PrometheusServer:
    """Starts Prometheus, scrapes the targets that workers write to ``sd_dir``, and runs queries.

    Windows and waits of the rules are shortened, for the tests' incidents last only seconds.
    """

    def __init__(self, folder: Path, rules: tuple[Path, ...]) -> None:
        self.folder = folder
        self.sd_dir = folder / "sd"
        self.sd_dir.mkdir(parents=True)
        self.job = f"job-{secrets.token_hex(4)}"
        self.producer_job = f"web-{secrets.token_hex(4)}"
        self._rules = rules
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def __enter__(self) -> Self:
        for rule in self._rules:
            (self.folder / rule.name).write_text(shortened(rule.read_text(encoding="utf-8")))
        scrape = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(self.folder / rule.name) for rule in self._rules],
            "scrape_configs": [
                {"job_name": self.job, "file_sd_configs": [
                    {"files": [f"{self.sd_dir}/*.json"], "refresh_interval": "1s"}]},
                {"job_name": self.producer_job, "file_sd_configs": [
                    {"files": [f"{self.folder}/producer.json"], "refresh_interval": "1s"}]},
            ],
        }  # fmt: skip
        config = self.folder / "prometheus.yml"
        config.write_text(json.dumps(scrape))
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        with (self.folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    str(PROGRAM), f"--config.file={config}", f"--storage.tsdb.path={self.folder / 'tsdb'}",
                    f"--web.listen-address=127.0.0.1:{port}", FEATURES,
                    "--log.level=warn",
                ],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                env=os.environ | {"GOGC": "400"},  # memory for time: it lives for a minute
            )  # fmt: skip
        try:
            self._wait_until_ready()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
            self._process.kill()
            self._process.wait()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(PrometheusError):
                self.query("up")
                return
            assert self._process is not None
            assert self._process.poll() is None, (self.folder / "prometheus.log").read_text()
            time.sleep(0.1)
        raise AssertionError("Prometheus was not ready in 60 s: " + (self.folder / "prometheus.log").read_text())

    def stores_zeros(self) -> bool:
        """Whether it knows the feature: it stores a 0 at the created timestamp of a counter."""
        return "Unknown option" not in (self.folder / "prometheus.log").read_text()

    def scrape_producer(self, port: int) -> None:
        """Scrape a program that only enqueues, under a separate job."""
        (self.folder / "producer.json").write_text(json.dumps([{"targets": [f"127.0.0.1:{port}"]}]))

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The instant vector of an expression, now."""
        return call_api(self.url, "/api/v1/query", {"query": expr})["result"]

    def value(self, expr: str) -> float:
        """The only value of an expression; 0 if it has none."""
        result = self.query(expr)
        assert len(result) <= 1, (expr, result)
        return float(result[0]["value"][1]) if result else 0.0

    def exemplars(self, expr: str, since: float) -> list[dict[str, Any]]:
        """Exemplars of the series of a selector since a time in epoch seconds."""
        span = {"query": expr, "start": f"{since:.3f}", "end": f"{time.time():.3f}"}
        return call_api(self.url, "/api/v1/query_exemplars", span)

    def wait_for(self, expr: str, expected: float, timeout_seconds: float = 60.0) -> float:
        """Wait until an expression has this value, and get its last value."""
        deadline = time.monotonic() + timeout_seconds
        while (found := self.value(expr)) != expected and time.monotonic() < deadline:
            time.sleep(0.25)
        return found

    def alerts_that_fired(self, since: float) -> set[str]:
        """Names of the alerts that were firing at any time since a time in epoch seconds."""
        span = {"start": f"{since:.3f}", "end": f"{time.time():.3f}", "step": "1"}
        expr = 'count by (alertname) (ALERTS{alertstate="firing"})'
        result = call_api(self.url, "/api/v1/query_range", {"query": expr, **span})["result"]
        return {series["metric"]["alertname"] for series in result}
