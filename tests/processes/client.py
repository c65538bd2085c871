"""`subprocess.Popen` that starts programs from the server of forks, where a fork is true to the test.

`install` puts it in the place of `subprocess.Popen`. It forks workers and other programs in a ``.py`` file,
``-m mageflow``, ``-m mageflow.engine`` and ``-m tests. ...``, also below the supervisor of a `ChildProcess`.

It starts a new interpreter, as always, for everything else: for ``-c`` and for options of the interpreter, because such
tests are about imports and the start; for an environment that libraries read at their import; and in tests with the
mark ``new_interpreters``.
"""

import asyncio.unix_events
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from select import POLLIN, poll
from types import SimpleNamespace
from typing import Any, ClassVar
from weakref import WeakValueDictionary

SERVER = Path(__file__).with_name("server.py")
ROOT = str(Path(__file__).parents[2])
SUPERVISOR = f"{ROOT}/mageflow/testing/supervisor.py"

COMMAND = "from mageflow.cli import main; main()"
MODULES = ("mageflow", "tests")

READ_AT_IMPORT = (
    "PYTHON",
    "LD_",
    "LANG",
    "LC_",
    "GRPC_",
    "OTEL_PYTHON_CONTEXT",
    "OTEL_SPAN_",
    "PROMETHEUS_",
    "PYDANTIC_",
    "NO_COLOR",
    "FORCE_COLOR",
)
"""Variables with these beginnings must be those of the server."""

TAKEN_LATER = {"PYTHONUNBUFFERED", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE"}

FORKS = sys.platform == "linux" and sys.version_info < (3, 14)
"""Elsewhere every program is a new interpreter. The server of forks that `multiprocessing` has in 3.14 wants a key."""

_POPEN = subprocess.Popen


class ForkServer:
    """The server process. It starts with the first program and ends with `stop`, or with this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._environment: dict[str, str] = {}

    def start(self, request: dict[str, Any], files: Sequence[int]) -> int:
        """Start a program and return its process id."""
        with self._lock:
            if self._control is None:
                self._begin()
            assert self._control is not None
            socket.send_fds(self._control, [json.dumps(list(request.values())).encode()], files)
            answer = self._control.recv(64)
        assert answer, "the server of forks has ended"
        return int(answer)

    def may_start(self, environment: Mapping[str, str]) -> bool:
        """Whether nothing that a library reads at its import is other than in the server."""
        here = self._environment if self._process is not None else _own_environment()
        return _read_at_import(environment) == _read_at_import(here) and _paths(environment) <= {
            ROOT,
            *_paths(os.environ),
            *sys.path,
        }

    def stop(self) -> None:
        """End the server. Its programs go on."""
        if self._process is None or self._control is None:
            return
        self._control.shutdown(socket.SHUT_RDWR)
        self._control.close()
        self._process.communicate()
        self._process = self._control = None

    def _begin(self) -> None:
        self._environment = _own_environment()
        self._control, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with there:
            self._process = _POPEN(
                [sys.executable, str(SERVER), str(there.fileno())],
                env=self._environment,
                pass_fds=[there.fileno()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )


def _own_environment() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name not in TAKEN_LATER - {"PYTHONDONTWRITEBYTECODE"} and not name.startswith(("HATCHET_", "MAGEFLOW_"))
    }


def _paths(environment: Mapping[str, str]) -> set[str]:
    """Other folders can have libraries of their own, or a ``sitecustomize.py``."""
    return {each for each in environment.get("PYTHONPATH", "").split(os.pathsep) if each}


def _read_at_import(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(READ_AT_IMPORT) and name not in TAKEN_LATER
    }


OWN_PATHS = {ROOT, *_paths(os.environ)}

SERVER_PROCESS = ForkServer()


class ForkingPopen(_POPEN):  # type: ignore[type-arg, valid-type, misc]
    """Forks what `_is_forked` names, and starts everything else as `subprocess.Popen` does."""

    uses_server = True
    """Set to False for tests that are about new interpreters."""

    by_pid: ClassVar[WeakValueDictionary[int, "ForkingPopen"]] = WeakValueDictionary()
    """The forked programs, for asyncio."""

    _report: int | None = None

    def _execute_child(
        self, args: Any, executable: Any, preexec_fn: Any, close_fds: Any, pass_fds: Any, cwd: Any, env: Any, *rest: Any
    ) -> None:
        _, _, shell, *pipes = rest[:9]
        restore_signals, gid, gids, uid, umask, starts_session, *group = rest[9:]
        environment = {
            os.fsdecode(name): os.fsdecode(value) for name, value in (os.environ if env is None else env).items()
        }
        plain = (executable, preexec_fn, shell or None, gid, gids, uid) == (None,) * 6 and close_fds and not pass_fds
        directory = os.path.abspath(cwd or os.getcwd())  # noqa: PTH100, PTH109 - texts for JSON
        if not (
            self.uses_server
            and plain
            and restore_signals
            and umask == -1
            and group in ([], [-1])
            and Path(directory).is_dir()
            and _is_forked(args, directory)
            and SERVER_PROCESS.may_start(environment)
        ):
            super()._execute_child(args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *rest)  # type: ignore[misc]
            self.by_pid.pop(self.pid, None)
            return
        self._report, report = os.pipe()
        given = (pipes[0], pipes[3], pipes[5])
        try:
            self.pid = SERVER_PROCESS.start(
                {
                    "arguments": [os.fsdecode(each) for each in args[1:]],
                    "environment": environment,
                    "directory": directory,
                    "starts_session": bool(starts_session),
                    "ignored_signals": [
                        number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
                        if signal.getsignal(number) is signal.SIG_IGN
                    ],
                },
                [*(number if each == -1 else each for number, each in enumerate(given)), report],
            )  # fmt: skip
        finally:
            os.close(report)
        self.by_pid[self.pid] = self
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        if self._report is None:
            return super()._try_wait(wait_flags)  # type: ignore[misc, no-any-return]
        if wait_flags & os.WNOHANG:
            waiting = poll()
            waiting.register(self._report, POLLIN)
            if not waiting.poll(0):
                return 0, 0
        status = os.read(self._report, 64)
        os.close(self._report)
        self._report = None
        return self.pid, int(status or signal.SIGKILL)

    def _internal_poll(self, *arguments: Any, **options: Any) -> int | None:
        if self._report is None or self.returncode is not None:
            return super()._internal_poll(*arguments, **options)  # type: ignore[misc, no-any-return]
        if self._waitpid_lock.acquire(False):  # type: ignore[attr-defined]
            try:
                if self.returncode is None and self._report is not None:
                    pid, status = self._try_wait(os.WNOHANG)
                    if pid == self.pid:
                        self._handle_exitstatus(status)  # type: ignore[attr-defined]
            finally:
                self._waitpid_lock.release()  # type: ignore[attr-defined]
        return self.returncode


def _is_forked(args: Any, directory: str) -> bool:
    if isinstance(args, str | bytes | os.PathLike):
        return False
    interpreter, *arguments = [os.fsdecode(each) for each in args]
    if interpreter != sys.executable or not arguments:
        return False
    if arguments[:3] == ["-I", "-S", SUPERVISOR]:
        return _is_forked(arguments[3:], directory)
    match arguments:
        case ["-m", module, *_]:
            return module.partition(".")[0] in MODULES
        case ["-c", code, *_]:
            return code == COMMAND
    return arguments[0].endswith(".py") and Path(directory, arguments[0]).is_file()


def _waitpid(pid: int, options: int) -> tuple[int, int]:
    """`os.waitpid` for asyncio, which knows the process id alone."""
    process = ForkingPopen.by_pid.get(pid)
    if process is None:
        return os.waitpid(pid, options)
    status = process.poll() if options & os.WNOHANG else process.wait()
    if status is None:
        return 0, 0
    return pid, -status if status < 0 else status << 8


def install() -> None:
    """Put it in the place of `subprocess.Popen`, also for asyncio."""
    if FORKS:
        subprocess.Popen = ForkingPopen  # type: ignore[misc]
        asyncio.unix_events.os = SimpleNamespace(**{**vars(os), "waitpid": _waitpid})  # type: ignore[assignment]


def uninstall() -> None:
    """Put `subprocess.Popen` back, and end the server."""
    if FORKS:
        subprocess.Popen = _POPEN  # type: ignore[misc]
        asyncio.unix_events.os = os
    SERVER_PROCESS.stop()
