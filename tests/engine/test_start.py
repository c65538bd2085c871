"""The engine process: how it starts, is found, and ends."""

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import grpc
import pytest

from mageflow.engine import EngineStartError, Handshake, LocalEngine
from mageflow.engine.contracts import dispatcher_pb2 as pb
from mageflow.testing.ports import free_port
from tests.engine.raw_client import RawClient
from tests.started_program import StartedProgram

pytestmark = pytest.mark.new_interpreters

COMMAND = [sys.executable, "-m", "mageflow.engine"]
ENDS_SECONDS = 30.0
"""It ends in some tenths of a second, on a machine that is busy with a test suite in many times that."""


def wait_for(path: Path, run: StartedProgram) -> Handshake:
    """Wait for a handshake file."""
    deadline = time.monotonic() + 90
    while not path.exists():
        assert run.process.poll() is None, run.ended()
        assert time.monotonic() < deadline, "no handshake"
        time.sleep(0.01)
    return Handshake.from_json(path.read_text())


@pytest.fixture
def embedded(tmp_path: Path) -> Path:
    """An executable as ``HATCHET_CLIENT_EMBEDDED_BINARY_PATH`` wants it."""
    script = tmp_path / "engine"
    root = Path(__file__).parent.parent.parent
    script.write_text(f'#!/bin/sh\nPYTHONPATH="{root}" exec {" ".join(COMMAND)} "$@"\n')
    script.chmod(0o755)
    return script


def test_starting_takes_less_than_a_second_of_work() -> None:
    """Start to ready: the SDK itself is never imported. Processor time, as other tests may use the machine."""
    with LocalEngine() as engine:
        fields = Path(f"/proc/{engine.pid}/stat").read_text().rsplit(")", 1)[1].split()
        seconds = sum(int(ticks) for ticks in fields[11:13]) / os.sysconf("SC_CLK_TCK")
    assert seconds < 1.0


def test_importing_the_engine_loads_neither_the_sdk_nor_grpc() -> None:
    """The import is cheap: gRPC and the SDK are loaded in the engine's own process."""
    code = (
        "import sys, mageflow.engine; print([m for m in ('hatchet_sdk', 'grpc', 'aiohttp', 'cel') if m in sys.modules])"
    )
    assert subprocess.run([*COMMAND[:1], "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"


def test_the_real_sdk_can_still_be_imported_after_the_contracts() -> None:
    """The replacement of the SDK's package is removed once the contracts are loaded."""
    code = "import mageflow.engine.contracts, hatchet_sdk; print(hatchet_sdk.Hatchet.__name__)"
    assert subprocess.run([*COMMAND[:1], "-c", code], check=True, capture_output=True, text=True).stdout == "Hatchet\n"


def test_the_handshake_file_is_for_its_owner_only(tmp_path: Path) -> None:
    """The token gives access to the engine. Unknown flags and database flags are accepted."""
    path = tmp_path / "handshake.json"
    flags = ["-handshake-file", str(path), "-database-url", "postgres://x", "-no-migrations", "--log-level", "error"]
    with StartedProgram([*COMMAND, *flags], has_input=True) as run:
        handshake = wait_for(path, run)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert handshake.grpc_address.startswith("127.0.0.1:")
        assert handshake.token.startswith("ey")
        run.send_signal(signal.SIGTERM)
        assert run.ended(ENDS_SECONDS).status == 0


def test_the_engine_ends_when_its_standard_input_closes(tmp_path: Path) -> None:
    """When standard input closes, the parent has ended, and the engine ends too."""
    path = tmp_path / "handshake.json"
    with StartedProgram([*COMMAND, "-handshake-file", str(path)], has_input=True) as run:
        wait_for(path, run)
        run.close_input()
        assert run.ended(ENDS_SECONDS).status == 0


def test_the_engine_ends_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    """The engine of a parent that was killed ends too."""
    code = (
        "import sys, time\nfrom mageflow.engine import LocalEngine\n"
        "with LocalEngine() as engine:\n    print(engine.pid, flush=True)\n    time.sleep(60)\n"
    )
    with StartedProgram([sys.executable, "-c", code]) as parent:
        engine_pid = int(parent.line())
    deadline = time.monotonic() + ENDS_SECONDS
    while Path(f"/proc/{engine_pid}").exists() and "Z" not in Path(f"/proc/{engine_pid}/stat").read_text().split()[2]:
        assert time.monotonic() < deadline, "the engine outlived its parent"
        time.sleep(0.05)


async def test_ports_can_be_chosen_and_one_in_use_fails_the_start() -> None:
    """Both ports can be chosen. If one is in use, the start fails with the reason."""
    grpc_port, api_port = free_port(), free_port()
    async with LocalEngine(grpc_port=grpc_port, api_port=api_port) as engine:
        assert engine.handshake.grpc_address == f"127.0.0.1:{grpc_port}"
        assert engine.handshake.api_url == f"http://127.0.0.1:{api_port}"
        for taken in ({"api_port": api_port}, {"grpc_port": grpc_port}):
            (port,) = taken.values()
            with pytest.raises(EngineStartError) as failed, LocalEngine(**taken):
                pass
            assert failed.value.exit_code == 1
            assert f"port {port} of 127.0.0.1 is in use" in failed.value.output
            assert "Traceback" not in failed.value.output


async def test_a_stopped_engine_has_no_handshake() -> None:
    """Outside its block the engine has no address."""
    engine = LocalEngine()
    with pytest.raises(RuntimeError, match="inside its with block"):
        _ = engine.handshake
    async with engine:
        pid = engine.pid
        os.kill(pid, 0)
    with pytest.raises(RuntimeError, match="inside its with block"):
        engine.environment()


async def test_a_wrong_token_is_refused_by_grpc_and_rest(engine: LocalEngine) -> None:
    """GRPC answers UNAUTHENTICATED and REST 403. The SDK retries neither."""
    async with aiohttp.ClientSession() as http:
        stranger = RawClient(engine.handshake, http, token="ey.wrong.token")  # noqa: S106 - refused on purpose
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stranger.call("Dispatcher/GetVersion", pb.GetVersionRequest(), pb.GetVersionResponse)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        stream = stranger.stream("Dispatcher/ListenV2", pb.WorkerListenRequest(), pb.AssignedAction)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stream.read()
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        status, document = await stranger.http("GET", stranger.tenant)
        assert status == 403
        assert "token" in document["errors"][0]["description"]
        await stranger.close()


PROGRAM = """
from hatchet_sdk import Context, EmptyModel, Hatchet

hatchet = Hatchet.from_embedded()

@hatchet.task()
def hello(input: EmptyModel, ctx: Context) -> dict[str, str]:
    return {"hello": "world"}

def main() -> None:
    import asyncio, os, threading
    worker = hatchet.worker("embedded", workflows=[hello])
    def ask() -> None:
        print("result", asyncio.run(hello.aio_run()), flush=True)
        os.kill(os.getpid(), 15)
    threading.Timer(3.0, ask).start()
    worker.start()

if __name__ == "__main__":
    main()
"""


@pytest.mark.timeout(120)
def test_a_plain_sdk_program_runs_embedded(embedded: Path, tmp_path: Path) -> None:
    """``Hatchet.from_embedded()`` starts the engine through its environment variable, and stops it."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("HATCHET_")},
        "HATCHET_CLIENT_EMBEDDED_BINARY_PATH": str(embedded),
    }
    done = subprocess.run(
        [sys.executable, str(program)], env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert "result {'hello': 'world'}" in done.stdout, done.stdout + done.stderr


async def test_an_idle_client_that_pings_like_the_sdk_stays_connected(engine: LocalEngine) -> None:
    """Pings without calls and data, much faster than the SDK's: no GOAWAY ``too_many_pings``."""
    options = [
        ("grpc.keepalive_time_ms", 1000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_sent_ping_interval_without_data_ms", 1000),
    ]
    channel = grpc.aio.insecure_channel(engine.handshake.grpc_address, options=options)
    await channel.channel_ready()
    state = channel.get_state()
    left = asyncio.ensure_future(channel.wait_for_state_change(state))
    done, _ = await asyncio.wait({left}, timeout=5)
    assert not done, f"the connection went from {state} to {channel.get_state()}"
    left.cancel()
    await channel.close()


def test_signals_end_the_engine_cleanly_while_streams_are_open(tmp_path: Path) -> None:
    """SIGINT and SIGTERM with open streams: exit code 0 within seconds."""
    for number in (signal.SIGINT, signal.SIGTERM):
        path = tmp_path / f"{number}.json"
        with (
            StartedProgram([*COMMAND, "-handshake-file", str(path), "-ignore-stdin"]) as run,
            grpc.insecure_channel((handshake := wait_for(path, run)).grpc_address) as channel,
        ):
            metadata = (("authorization", f"Bearer {handshake.token}"),)
            register = channel.unary_unary(
                "/Dispatcher/Register",
                request_serializer=pb.WorkerRegisterRequest.SerializeToString,
                response_deserializer=pb.WorkerRegisterResponse.FromString,
            )
            worker = register(pb.WorkerRegisterRequest(worker_name="w"), metadata=metadata)
            listen = channel.unary_stream(
                "/Dispatcher/ListenV2",
                request_serializer=pb.WorkerListenRequest.SerializeToString,
                response_deserializer=pb.AssignedAction.FromString,
            )
            stream = listen(pb.WorkerListenRequest(worker_id=worker.worker_id), metadata=metadata)
            run.send_signal(number)
            assert run.ended(ENDS_SECONDS).status == 0
            stream.cancel()


def test_a_handshake_is_read_back_as_written() -> None:
    """The document is the one ``from_embedded()`` reads; anything else is a ValueError."""
    handshake = Handshake("ey.a.b", "tenant", "127.0.0.1:1", "http://127.0.0.1:2")
    assert Handshake.from_json(handshake.to_json()) == handshake
    assert set(json.loads(handshake.to_json())) == {"token", "tenant_id", "grpc_address", "api_url"}
    with pytest.raises(ValueError, match="not a handshake"):
        Handshake.from_json("[]")


def test_an_engine_that_cannot_be_started_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of the handshake stayed in the system's folder for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    with pytest.raises(FileNotFoundError), LocalEngine():
        pass
    assert list(tmp_path.iterdir()) == []
