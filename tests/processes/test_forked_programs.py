"""A forked program sees, and is seen, as one that a new interpreter runs."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from mageflow.testing.workers import WorkerProcess
from tests.processes.client import FORKS, READ_AT_IMPORT, ForkingPopen
from tests.processes.server import LIBRARIES
from tests.started_program import StartedProgram

pytestmark = pytest.mark.skipif(not FORKS, reason="every program is a new interpreter here")


@pytest.fixture(autouse=True)
def forks(request: pytest.FixtureRequest) -> None:
    """Nothing is to be compared where the run asks for no forks."""
    if request.config.getoption("new_interpreters"):
        pytest.skip("this run forks no program")


SEES = """
import asyncio, multiprocessing.forkserver, os, signal, sys, threading
import __main__
import beside
print(sys.argv, sys.path[:3], sys.flags, sys.warnoptions, sys.dont_write_bytecode)
print(__name__, __file__, __main__ is sys.modules["__main__"], vars(__main__)["beside"] is beside)
print(os.getcwd(), dict(sorted(os.environ.items())), os.getpgrp() == os.getpid())
print([(each, signal.getsignal(each)) for each in sorted(signal.valid_signals())], signal.set_wakeup_fd(-1))
print([each.name for each in threading.enumerate()], vars(asyncio.get_event_loop_policy()._local), sys.exc_info())
listener_server = str(multiprocessing.forkserver._forkserver._forkserver_alive_fd)
print(len({*os.listdir("/proc/self/fd")} - {listener_server}))
print([each.fileno() for each in (sys.stdin, sys.stdout, sys.stderr)])
unbuffered = bool(os.environ["PYTHONUNBUFFERED"])
for each in (sys.stdin, sys.stdout, sys.stderr):
    print(each.encoding, each.errors, each.line_buffering or unbuffered)
print(sys.stdin.read())
print([name for name in sys.modules if name.split(".")[0] in {"mageflow", "tests", "structlog"}])
print("an error", file=sys.stderr)
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def both(monkeypatch):
    """Calls a function with forks and with new interpreters."""

    def call(function):
        found = []
        for forks in (True, False):
            monkeypatch.setattr(ForkingPopen, "uses_server", forks)
            found.append(function())
        return found

    return call


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("new_session", [True, False])
def test_a_program_sees_what_it_sees_in_a_new_interpreter(both, root, tmp_path, unbuffered, new_session):
    """Arguments, paths, environment, directory, signals, open files, streams and modules are the same."""
    (tmp_path / "sees.py").write_text(SEES)
    (tmp_path / "beside.py").write_text("")
    environment = {**os.environ, "SEEN": "yes", "PYTHONPATH": str(root), "PYTHONUNBUFFERED": unbuffered}

    def run():
        return subprocess.run(
            [sys.executable, "sees.py", "3"], cwd=tmp_path, env=environment, input="given", capture_output=True,
            text=True, check=False, start_new_session=new_session,
        )  # fmt: skip

    forked, new = both(run)
    assert forked.stdout.splitlines() == new.stdout.splitlines()
    assert (forked.returncode, forked.stderr) == (new.returncode, new.stderr) == (3, "an error\n")


ENDS = {
    "normally": "print('end')",
    "exit": "raise SystemExit('a text')",
    "error": "import atexit; atexit.register(print, 'at exit'); open('/missing')",
    "signal": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "interrupted": "import os, signal; os.kill(os.getpid(), signal.SIGINT)",
    "thread": "import threading, time\nthreading.Thread(target=lambda: (time.sleep(0.3), print('thread'))).start()",
    "os._exit": "import os; os._exit(9)",
}


@pytest.mark.parametrize("how", ENDS)
def test_a_program_ends_as_in_a_new_interpreter(both, tmp_path, how):
    """Status, output and the last line of the error are the same, and the process is gone."""
    (tmp_path / "ends.py").write_text(ENDS[how])

    def run():
        process = subprocess.Popen(
            [sys.executable, "ends.py"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        output, errors = process.communicate(timeout=60)
        assert not psutil.pid_exists(process.pid)
        return process.returncode, output, errors.splitlines()[-1:]

    forked, new = both(run)
    assert forked == new


def test_the_programs_here_are_forks(tmp_path):
    """The tests above compare two things: a program is a fork of the server, and one that it does not take is not."""
    (tmp_path / "parent.py").write_text("import os, sys; print(os.getppid(), 'hatchet_sdk' in sys.modules)")
    command = [sys.executable, str(tmp_path / "parent.py")]

    def run(**options):
        return subprocess.run(command, capture_output=True, text=True, check=True, **options).stdout.split()

    forked = run()
    assert forked == run()
    assert psutil.Process(int(forked[0])).ppid() == os.getpid()
    assert forked[1] == "True"
    as_new = [str(os.getpid()), "False"]
    of_engine = {"PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}
    for variables in (of_engine, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}):
        assert run(env={**os.environ, **variables})[1] == "True"
    for variables in (
        {"OTEL_SPAN_LINK_COUNT_LIMIT": "1"},
        {"PYTHONPATH": str(tmp_path)},
        {"GRPC_VERBOSITY": "ERROR"},
        {"PYTHONWARNINGS": "error"},
    ):
        assert run(env={**os.environ, **variables}) == as_new
    assert run(preexec_fn=lambda: None) == as_new
    command[1:1] = ["-W", "error"]
    assert run() == as_new


READS = """
import importlib, os, sys, warnings
read, get = set(), type(os.environ).__getitem__

def noted(self, name):
    read.add(name)
    return get(self, name)

type(os.environ).__getitem__ = noted
warnings.simplefilter("ignore")
for library in sys.argv[1:]:
    importlib.import_module(library)
print(*(name for name in read if name.startswith("OTEL_")))
"""


def test_a_variable_of_opentelemetry_that_is_read_at_import_is_known():
    """A fork would not see another value of it, so a program that has one must be a new interpreter."""
    command = [sys.executable, "-c", READS, *LIBRARIES]
    read = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert read
    assert [each for each in read if not each.startswith(READ_AT_IMPORT)] == []


def test_a_program_waits_for_lines_and_signals(tmp_path):
    """A test that talks to a program does it as always."""
    (tmp_path / "waits.py").write_text(
        "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(4))\n"
        "print('ready', flush=True)\nprint(input(), flush=True)\nsignal.pause()\n"
    )
    with StartedProgram([sys.executable, str(tmp_path / "waits.py")], has_input=True) as run:
        assert run.line() == "ready\n"
        assert not run.has_line(0.1)
        assert run.process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            run.process.wait(0.1)
        run.process.stdin.write("a line\n")
        run.process.stdin.flush()
        assert run.line() == "a line\n"
        run.send_signal(signal.SIGTERM)
        assert run.ended().status == 4
        assert run.process.poll() == 4


def test_asyncio_starts_and_waits_for_programs_too(both, tmp_path):
    """It waits for the process id, which is not a child of this process."""
    (tmp_path / "echoes.py").write_text("import sys; print(input()); sys.exit(int(sys.argv[1]) or input())")

    async def run():
        pipe = asyncio.subprocess.PIPE
        command = (sys.executable, str(tmp_path / "echoes.py"))
        ends = await asyncio.create_subprocess_exec(*command, "5", stdin=pipe, stdout=pipe)
        waits = await asyncio.create_subprocess_exec(*command, "0", stdin=pipe, stdout=pipe)
        waits.stdin.write(b"a line\n")
        assert await waits.stdout.readline() == b"a line\n"
        waits.kill()
        output, _ = await ends.communicate(b"another\n")
        return output, ends.returncode, await waits.wait()

    forked, new = both(lambda: asyncio.run(run()))
    assert forked == new == (b"another\n", 5, -signal.SIGKILL)


def test_a_worker_and_its_listener_are_one_process_group(mageflow_engine, tmp_path):
    """So a test kills or stops both, as the supervisor does. The supervisor is the parent of the worker."""
    script = Path(__file__).parents[1] / "testing/greeting_worker.py"
    worker = WorkerProcess(mageflow_engine, script, output=tmp_path / "log")
    with worker:
        [listener] = [
            each for each in psutil.Process(worker.pid).children(recursive=True) if "tracker" not in str(each.cmdline())
        ][1:]
        group = [each.pid for each in psutil.process_iter() if os.getpgid(each.pid) == worker.pid]
        assert {worker.pid, listener.pid} < set(group)
        assert os.getsid(worker.pid) == worker.pid
        worker.kill()
        assert worker.returncode == -signal.SIGKILL
        assert psutil.wait_procs([listener], 60)[1] == []
