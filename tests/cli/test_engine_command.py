"""``mageflow engine``: an engine in the foreground, and the variables that lead another process to it."""

import json
import os
import shlex
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

COMMAND = [sys.executable, "-c", "from mageflow.cli import main; main()", "engine"]


@contextmanager
def running(*arguments: str) -> Generator[tuple[subprocess.Popen[str], list[str]]]:
    """The running command and its first lines. It is stopped with SIGTERM."""
    process = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        count = 1 if "--json" in arguments else 6 if "--redis" in arguments else 5
        yield process, [process.stdout.readline().strip() for _ in range(count)]
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def is_alive(variables: dict[str, str]) -> bool:
    """Whether the engine of these variables accepts their token."""
    handshake = json.loads(variables["HATCHET_EMBEDDED_HANDSHAKE"])
    request = urllib.request.Request(  # noqa: S310 - our own engine
        f"{handshake['api_url']}/api/v1/tenants/{handshake['tenant_id']}/worker",
        headers={"Authorization": f"Bearer {variables['HATCHET_CLIENT_TOKEN']}"},
    )
    with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - as above
        return "rows" in json.load(response)


def test_export_lines_can_be_pasted():
    """The lines are valid shell, and set every variable that leads a client to an engine."""
    with running() as (process, lines):
        variables = dict(shlex.split(line)[1].split("=", 1) for line in lines)

        assert set(variables) == {
            "HATCHET_CLIENT_TOKEN",
            "HATCHET_CLIENT_TLS_STRATEGY",
            "HATCHET_CLIENT_HOST_PORT",
            "HATCHET_CLIENT_SERVER_URL",
            "HATCHET_EMBEDDED_HANDSHAKE",
        }
        assert is_alive(variables)
    assert process.returncode == 0


def test_redis_brings_a_server_for_signatures_and_flows():
    """``--redis`` also runs a Valkey server, prints its URL, and stops it at the end."""
    with running("--redis") as (_, lines):
        variables = dict(shlex.split(line)[1].split("=", 1) for line in lines)
        with redis.Redis.from_url(variables["MAGEFLOW_REDIS_URL"]) as client:
            assert client.ping()
        assert is_alive(variables)

    with redis.Redis.from_url(variables["MAGEFLOW_REDIS_URL"]) as client, pytest.raises(redis.ConnectionError):
        client.ping()


def test_json_is_one_line_for_machines():
    """``--json`` prints the same variables as one object."""
    with running("--json") as (_, lines):
        assert is_alive(json.loads(lines[0]))


def test_handshake_file_is_there_while_the_engine_is(tmp_path):
    """Only the owner can read the file. It is complete when it appears and is removed with the engine."""
    path = tmp_path / "engine.json"
    with running("--handshake-file", str(path)) as (_, _lines):
        assert json.loads(path.read_text())["grpc_address"].startswith("127.0.0.1:")
        assert path.stat().st_mode & 0o077 == 0
    assert not path.exists()


def test_program_that_knows_nothing_of_mageflow_runs_on_it(tmp_path):
    """`Hatchet.from_embedded()` starts the engine itself if a variable names the executable."""
    program = tmp_path / "program.py"
    program.write_text(
        "from hatchet_sdk import Hatchet\n"
        "print(Hatchet.from_embedded().workers.list().rows)\n"
        "from hatchet_sdk.embedded import stop_embedded_sidecar\n"
        "stop_embedded_sidecar()\n"
    )
    executable = Path(sys.executable).with_name("mageflow-engine")
    # Without the address of the session's engine, which it would connect to instead of starting one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HATCHET_")}

    run = subprocess.run(
        [sys.executable, program],
        env={**environment, "HATCHET_CLIENT_EMBEDDED_BINARY_PATH": str(executable)},
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )

    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "[]"


def test_taken_port_is_one_clear_line():
    """An engine that cannot start prints the reason and exits with status 1."""
    with running("--json") as (_, lines):
        port = json.loads(json.loads(lines[0])["HATCHET_EMBEDDED_HANDSHAKE"])["grpc_address"].rpartition(":")[2]
        run = subprocess.run([*COMMAND, "--grpc-port", port], capture_output=True, text=True, check=False, timeout=90)

    assert run.returncode == 1
    assert run.stdout == ""
    assert run.stderr == (
        f"mageflow: port {port} of 127.0.0.1 is in use or not allowed for gRPC: choose another, or 0 for a free one\n"
    )
