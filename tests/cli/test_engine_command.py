"""``mageflow engine``: an engine in the foreground, and the variables that lead another process to it."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from tests.started_program import StartedProgram

COMMAND = [sys.executable, "-c", "from mageflow.cli import main; main()", "engine"]
FREE_PORTS = ("--grpc-port", "0", "--api-port", "0")


@pytest.fixture(autouse=True)
def own_env_files(tmp_path, monkeypatch):
    """The env files of these engines are not those of the person who runs the tests."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@contextmanager
def running(*arguments: str) -> Generator[list[str]]:
    """The first lines of the running command. SIGTERM ends it with status 0."""
    count = 1 if "--json" in arguments else 6 if "--redis" in arguments else 5
    with StartedProgram([*COMMAND, *arguments]) as run:
        yield [run.line().strip() for _ in range(count)]
        run.send_signal(signal.SIGTERM)
        ended = run.ended()
        assert ended.status == 0, ended.errors


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
    with running(*FREE_PORTS) as lines:
        variables = dict(shlex.split(line)[1].split("=", 1) for line in lines)

        assert set(variables) == {
            "HATCHET_CLIENT_TOKEN",
            "HATCHET_CLIENT_TLS_STRATEGY",
            "HATCHET_CLIENT_HOST_PORT",
            "HATCHET_CLIENT_SERVER_URL",
            "HATCHET_EMBEDDED_HANDSHAKE",
        }
        assert is_alive(variables)


def test_redis_brings_a_server_for_signatures_and_flows():
    """``--redis`` also runs a Valkey server, prints its URL, and stops it at the end."""
    with running(*FREE_PORTS, "--redis", "--redis-port", "0") as lines:
        variables = dict(shlex.split(line)[1].split("=", 1) for line in lines)
        with redis.Redis.from_url(variables["MAGEFLOW_REDIS_URL"]) as client:
            assert client.ping()
        assert is_alive(variables)

    with redis.Redis.from_url(variables["MAGEFLOW_REDIS_URL"]) as client, pytest.raises(redis.ConnectionError):
        client.ping()


def test_json_is_one_line_for_machines():
    """``--json`` prints the same variables as one object."""
    with running(*FREE_PORTS, "--json") as lines:
        assert is_alive(json.loads(lines[0]))


def test_handshake_file_is_there_while_the_engine_is(tmp_path):
    """Only the owner can read the file. It is complete when it appears and is removed with the engine."""
    path = tmp_path / "engine.json"
    with running(*FREE_PORTS, "--handshake-file", str(path)):
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


def test_a_taken_port_is_one_clear_line():
    """An engine that cannot start prints the reason and what to do, and exits with status 1."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        run = subprocess.run(
            [*COMMAND, "--grpc-port", str(port)], capture_output=True, text=True, check=False, timeout=90
        )

    assert run.returncode == 1
    assert run.stdout == ""
    assert run.stderr.startswith(f"mageflow: port {port} of 127.0.0.1 is in use or not allowed: ")
    assert "mageflow engine --name second" in run.stderr
    assert run.stderr.count("\n") == 1


def test_a_second_engine_says_how_to_be_another_one():
    """The engine that runs can be used; another one needs another name, and then has its own ports and token."""
    with running(*FREE_PORTS, "--json") as [first]:
        grpc_port, api_port = (
            json.loads(first)[name].rpartition(":")[2]
            for name in ("HATCHET_CLIENT_HOST_PORT", "HATCHET_CLIENT_SERVER_URL")
        )
        ports = ("--grpc-port", grpc_port, "--api-port", api_port)
        refused = subprocess.run([*COMMAND, *ports], capture_output=True, text=True, check=False, timeout=90)

        assert refused.returncode == 1
        assert refused.stderr == (
            f"mageflow: the development engine 'default' runs already (port {grpc_port}): use it with "
            "`mageflow run -- PROGRAM`, or start another one: `mageflow engine --name second`\n"
        )
        with running(*FREE_PORTS, "--name", "second", "--json") as [second]:
            assert json.loads(second)["HATCHET_CLIENT_TOKEN"] != json.loads(first)["HATCHET_CLIENT_TOKEN"]
            assert is_alive(json.loads(second))
            assert is_alive(json.loads(first))


def test_token_and_ports_of_a_name_stay_the_same():
    """A program that has the variables finds the engine after a restart too."""
    with running(*FREE_PORTS, "--name", "kept", "--redis", "--redis-port", "0", "--json") as [first]:
        pass
    with running("--name", "kept", "--redis", "--json") as [again]:
        assert json.loads(again) == json.loads(first)
        assert is_alive(json.loads(first))


def mageflow(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run another command, in a shell that has none of the variables."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HATCHET_", "MAGEFLOW_"))}
    return subprocess.run(
        [*COMMAND[:-1], *arguments], capture_output=True, text=True, check=False, timeout=90, env=environment
    )


def test_run_leads_a_program_to_the_engine(tmp_path):
    """The program finds engine and Redis without a variable of the shell; its exit status is that of the command."""
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys\n"
        "from hatchet_sdk import Hatchet\n"
        "print(Hatchet().workers.list().rows, os.environ['MAGEFLOW_REDIS_URL'])\n"
        "sys.exit(7)\n"
    )
    with running(*FREE_PORTS, "--redis", "--redis-port", "0", "--json") as [line]:
        run = mageflow("run", "--", sys.executable, str(program))

    assert run.stdout == f"[] {json.loads(line)['MAGEFLOW_REDIS_URL']}\n", run.stderr
    assert run.returncode == 7


def test_env_is_read_by_a_shell():
    """`eval "$(mageflow env)"` sets the variables as the engine has printed them; only the owner reads the file."""
    with running(*FREE_PORTS, "--json") as [line]:
        shell = mageflow("env").stdout + 'printf %s "$HATCHET_EMBEDDED_HANDSHAKE"'
        evaluated = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True).stdout
        path = Path(mageflow("env", "--path").stdout.strip())
        assert path.stat().st_mode & 0o077 == 0
        assert json.loads(mageflow("env", "--json").stdout) == json.loads(line)

    assert evaluated == json.loads(line)["HATCHET_EMBEDDED_HANDSHAKE"]


@pytest.mark.parametrize("command", [("env",), ("run", "--", "true")], ids=" ".join)
def test_without_an_engine_the_remedy_is_printed(command):
    """Nothing is on standard output, which a shell may evaluate."""
    with running(*FREE_PORTS, "--json"):
        pass  # its env file stays
    run = mageflow(*command)

    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith("mageflow: no development engine 'default' runs on this machine: ")
    assert "`mageflow engine --redis`" in run.stderr
    assert run.stderr.count("\n") == 1
