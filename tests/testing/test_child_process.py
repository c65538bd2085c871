"""Servers and workers that a test starts end with it, however it ends, and never touch what they did not start."""

import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from mageflow.errors import ConfigurationError, StoreUnavailableError
from mageflow.testing import EmbeddedValkey
from tests.started_program import StartedProgram

pytestmark = pytest.mark.new_interpreters

PARENT = """
import sys, time
from mageflow.testing import EmbeddedValkey
server = EmbeddedValkey().start()
print(server.pid, flush=True)
time.sleep(600)
"""

FORKING = """
import multiprocessing, sys, time
from mageflow.engine import LocalEngine
from mageflow.testing import EmbeddedValkey
with EmbeddedValkey() as server, LocalEngine() as engine:
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
    child.start()
    print(server.pid, engine.pid, child.pid, flush=True)
    time.sleep(600)
"""
FORKED_END = """
import os, sys
from mageflow.engine import LocalEngine
from mageflow.testing import EmbeddedValkey
with EmbeddedValkey() as server, LocalEngine() as engine:
    child = os.fork()
    if not child:
        sys.exit()
    os.waitpid(child, 0)
    os.kill(engine.pid, 0)
    server.flush()
    print("both run", flush=True)
"""


def wait_until_gone(pid: int, seconds: float = 60.0) -> bool:
    """Whether a process ends in time; a zombie has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False


def descendants(pid: int) -> list[int]:
    """Every process below one."""
    return [each.pid for each in psutil.Process(pid).children(recursive=True)]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_server_ends_with_its_parent(number):
    """A signal ends the parent: neither the server nor its supervisor is left."""
    with StartedProgram([sys.executable, "-c", PARENT]) as parent:
        server = int(parent.line())
        below = descendants(parent.pid)
        assert server in below
        parent.send_signal(number)
        parent.process.wait(60)

    assert [pid for pid in below if not wait_until_gone(pid)] == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_servers_end_with_their_parent_while_its_forked_child_lives(number):
    """A forked child has a copy of each pipe that the parent holds; it must not keep the servers alive."""
    with StartedProgram([sys.executable, "-c", FORKING]) as parent:
        server, engine, child = map(int, parent.line().split())
        try:
            parent.send_signal(number)
            parent.process.wait(60)
            left = [pid for pid in (server, engine) if not wait_until_gone(pid)]
            child_lives = psutil.pid_exists(child)
        finally:
            os.kill(child, signal.SIGKILL)

    assert (left, child_lives) == ([], True)


def test_forked_child_that_leaves_the_block_ends_no_server():
    """A child of ``os.fork`` runs the rest of the program: the servers are not its own."""
    with StartedProgram([sys.executable, "-c", FORKED_END]) as parent:
        assert parent.line() == "both run\n"
        assert parent.ended().status == 0


def test_worker_and_its_listener_end_with_their_parent(root, tmp_path, mageflow_engine):
    """SIGKILL of a pytest run leaves neither the worker process nor the SDK's listener process below it."""
    program = f"""
import json, os, sys, time
from pathlib import Path
from mageflow.engine.tokens import Handshake
from mageflow.testing import WorkerProcess
class Engine:
    handshake = Handshake.from_json(os.environ["HATCHET_EMBEDDED_HANDSHAKE"])
    def environment(self):
        return {{}}
worker = WorkerProcess(
    Engine(), {str(root / "tests/testing/greeting_worker.py")!r}, output=Path({str(tmp_path / "log")!r})
).start()
print(worker.pid, flush=True)
time.sleep(600)
"""
    environment = {**os.environ, **mageflow_engine.environment()}
    with StartedProgram([sys.executable, "-c", program], env=environment) as parent:
        worker = int(parent.line())
        below = descendants(parent.pid)
        assert len(descendants(worker)) >= 1
        parent.send_signal(signal.SIGKILL)
        parent.process.wait(60)

    assert [pid for pid in below if not wait_until_gone(pid)] == []


def test_signal_of_the_terminal_does_not_reach_the_server():
    """Ctrl-C goes to a whole process group; the server is not in it and answers until its parent stops it."""
    with EmbeddedValkey() as server:
        assert os.getpgid(server.pid) != os.getpgid(0)
        assert os.getsid(server.pid) != os.getsid(0)


def test_taken_port_is_one_sentence():
    """A port that another program has taken is refused, and the message says what to do."""
    with EmbeddedValkey() as first:
        second = EmbeddedValkey(port=first.port)
        with pytest.raises(
            ConfigurationError,
            match=f"^port {first.port} is taken by another program: choose another port, or 0 for a free one$",
        ):
            second.start()

        assert first.keys_without_ttl("") == []


def test_flush_never_empties_a_server_of_somebody_else():
    """When the own server has died and another one answers on the port, no command is sent to it."""
    own = EmbeddedValkey().start()
    os.kill(own.pid, signal.SIGKILL)
    assert wait_until_gone(own.pid)
    with EmbeddedValkey(port=own.port) as other:
        other._command("writing a key", b"SET", b"precious", b"1")
        with pytest.raises(StoreUnavailableError, match="the embedded Valkey does not run"):
            own.flush()
        assert other.keys_without_ttl("") == ["precious"]
    own.stop()


def test_a_server_behind_the_port_proves_that_it_is_the_own_one(monkeypatch):
    """A live child is not enough: the process id on the very connection decides."""
    with EmbeddedValkey() as own, EmbeddedValkey() as other:
        other._command("writing a key", b"SET", b"precious", b"1")
        own.port, port = other.port, own.port
        try:
            with pytest.raises(StoreUnavailableError, match="another server answers on port"):
                own.flush()
        finally:
            own.port = port
        assert other.keys_without_ttl("") == ["precious"]


@pytest.mark.parametrize("words", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"$x\r\n", b"\xff\xfe\x00", b""])
def test_port_that_speaks_something_else_is_a_typed_error(words):
    """Something that is no Redis is refused without a traceback of our own parsing."""

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(1024)
                connection.sendall(words)

    with socket.create_server(("127.0.0.1", 0)) as listener, EmbeddedValkey() as server:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        server.port, port = listener.getsockname()[1], server.port
        try:
            with pytest.raises(StoreUnavailableError):
                server.flush()
        finally:
            server.port = port


def test_supervisor_reports_the_status_of_the_command(tmp_path: Path):
    """The exit status of a supervised command is its own: a number, or the negative signal."""
    from mageflow.testing.child_process import ChildProcess

    with (tmp_path / "log").open("wb") as log:
        exits = ChildProcess([sys.executable, "-c", "raise SystemExit(7)"], output=log, environment=os.environ)
        assert exits.wait(60) == 7
        killed = ChildProcess([sys.executable, "-c", "import time; time.sleep(60)"], output=log, environment=os.environ)
        killed.send_signal(signal.SIGTERM)
        assert killed.wait(60) == -signal.SIGTERM
