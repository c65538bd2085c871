"""Starts Python programs by forking a process that has imported the libraries, and nothing of mageflow.

A new interpreter imports the SDK and what it stands on in more than a second of CPU; the suite starts hundreds. A fork
has them at once. All that is under test still happens in the program's own process, from the first line of mageflow on:
it imports mageflow, reads its own environment, arguments and directory, opens its own connections, and ends as an
interpreter ends. `tests.processes.client` says which programs are started here.

``server.py SOCKET``: each message on the socket is a `Request`, with the files that are its standard streams and the
pipe for its exit status. The answer is the process id.
"""

import gc
import importlib
import json
import multiprocessing
import multiprocessing.forkserver
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import time
import types
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.machinery import SourceFileLoader
from multiprocessing.context import BaseContext, ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

LIBRARIES = (
    "hatchet_sdk",
    "hatchet_sdk.worker.action_listener_process",
    "aiohttp.web",
    "cel",
    "click",
    "grpc.aio",
    "opentelemetry.sdk.metrics",
    "opentelemetry.sdk.trace",
    "prometheus_client",
    "redis.asyncio",
    "rich.console",
)
"""Not structlog: mageflow looks whether a program has imported it."""

Program = Callable[[], object]


class Request(NamedTuple):
    """A program, and what a new process gets from the one that starts it."""

    arguments: list[str]  # after the interpreter: ``-m``, ``-c`` or the file first
    environment: dict[str, str]
    directory: str
    starts_session: bool
    ignored_signals: list[int]


class NextProgram(BaseException):
    """Raised in a forked child: the process leaves what its parent was doing, and becomes this program."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.program = program


def serve(control: socket.socket) -> NoReturn:
    """Fork a process for each request, and report its status when it ends, until the socket is closed."""
    gc.disable()  # an eighth of the imports
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in LIBRARIES:
            with suppress(ImportError):
                importlib.import_module(name)
    ended_r, ended_w = os.pipe()
    os.set_blocking(ended_w, False)
    signal.set_wakeup_fd(ended_w)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's is for the tests, which close the socket
    reports: dict[int, int] = {}
    gc.collect()
    gc.freeze()  # the children share these pages until they write to them
    gc.enable()
    while True:
        ready, _, _ = select.select([control, ended_r], [], [])
        if ended_r in ready:
            os.read(ended_r, 4096)
            _report(reports)
        if control in ready:
            message, files, _, _ = socket.recv_fds(control, 1 << 20, 4)
            if not message:
                os._exit(0)
            *streams, report = files
            pid = os.fork()
            if pid == 0:
                for each in (ended_r, ended_w, report, *reports.values()):
                    os.close(each)
                control.close()
                raise NextProgram(become(Request(*json.loads(message)), streams))
            reports[pid] = report
            for each in streams:
                os.close(each)
            control.send(str(pid).encode())


def _report(reports: dict[int, int]) -> None:
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            with suppress(BrokenPipeError):
                os.write(reports[pid], str(status).encode())
            os.close(reports.pop(pid))


def become(request: Request, streams: Sequence[int] = (), prepare: Callable[[], object] | None = None) -> Program:
    """Make this forked process one that looks as if its interpreter had just started.

    Returns:
        The program. The caller runs it at the outermost level.
    """
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGXFSZ}:
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    if request.starts_session:
        os.setsid()
    for target, each in enumerate([os.dup(each) for each in streams]):
        os.dup2(each, target)
        os.close(each)
    for each in {*streams} - {0, 1, 2}:
        os.close(each)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for ignored in request.ignored_signals:
        signal.signal(ignored, signal.SIG_IGN)
    os.chdir(request.directory)
    if prepare is not None:
        prepare()
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    _take_environment(request.environment)
    first, *rest = request.arguments
    if first == "-I":  # the supervisor, which is `-I -S FILE`
        subprocess.Popen = SupervisedPopen  # type: ignore[misc]
        return _program(rest[1], rest[2:])
    if _may_run_a_worker(first, rest):
        _fork_listener_server()
    return _program(first, rest)


def _may_run_a_worker(first: str, rest: Sequence[str]) -> bool:
    return first.endswith(".py") or (
        first == "-m" and (rest[0] != "mageflow" or {"worker", "demo"} & {*rest[1:2]} != set())
    )


def _take_environment(environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    sys.dont_write_bytecode = bool(environment.get("PYTHONDONTWRITEBYTECODE"))
    sys.path[1:1] = [os.path.abspath(each) for each in environment.get("PYTHONPATH", "").split(os.pathsep) if each]  # noqa: PTH100 - as the interpreter does it
    importlib.invalidate_caches()
    unbuffered = bool(environment.get("PYTHONUNBUFFERED"))
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        stream.reconfigure(line_buffering=number == 2 or unbuffered or os.isatty(number), write_through=unbuffered)


def _program(first: str, rest: list[str]) -> Program:
    main = types.ModuleType("__main__")
    vars(main).update(__builtins__=__builtins__, __annotations__={})
    sys.modules["__main__"] = main
    sys.orig_argv[1:] = [first, *rest]
    if first == "-m":
        sys.path[0] = os.getcwd()  # noqa: PTH109 - sys.path has texts
        sys.argv[:] = ["-m", *rest[1:]]
        return lambda: runpy._run_module_as_main(rest[0])
    if first == "-c":
        sys.path[0] = ""
        sys.argv[:] = ["-c", *rest[1:]]
        code = compile(rest[0], "<string>", "exec")
    else:
        sys.path[0] = os.path.realpath(os.path.dirname(first))  # noqa: PTH120 - as above
        sys.argv[:] = [first, *rest]
        vars(main).update(
            __file__=str(Path(first).absolute()), __cached__=None, __loader__=SourceFileLoader("__main__", first)
        )
        code = compile(Path(first).read_bytes(), first, "exec")
    return lambda: exec(code, vars(main))  # noqa: S102 - this is what an interpreter does


class SupervisedPopen(subprocess.Popen[bytes]):
    """`subprocess.Popen` in a forked supervisor: its command is a fork of it, and so a child of it as always."""

    def _execute_child(
        self, args: Sequence[str], executable: Any, preexec_fn: Any, close_fds: bool, pass_fds: Any, cwd: Any,
        env: Any, startupinfo: Any, creationflags: Any, shell: Any, *rest: Any,
    ) -> None:  # fmt: skip
        pipes = rest[:6]
        streams = [own if given == -1 else given for own, given in enumerate((pipes[0], pipes[3], pipes[5]))]
        self.pid = os.fork()
        if self.pid == 0:
            subprocess.Popen = _POPEN  # type: ignore[misc]
            self._closed_child_pipe_fds = True  # `become` closes them
            request = Request(list(args[1:]), dict(os.environ), str(Path.cwd()), True, [])
            raise NextProgram(become(request, streams, preexec_fn))
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]


_POPEN = subprocess.Popen


class _ListenerProcess(ForkServerProcess):
    """A process that has the environment of the moment at which it is made, as a new interpreter has."""

    __module__ = "program_server"  # not the main module, which another takes the place of

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._environment = dict(os.environ)

    def run(self) -> None:
        os.environ.clear()
        os.environ.update(self._environment)
        super().run()


class _ListenerContext(ForkServerContext):
    Process = _ListenerProcess  # type: ignore[assignment]


def _fork_listener_server() -> None:
    """Fork, before this process has a thread, the server of the SDK's listener process.

    The SDK starts its listener with the method ``spawn``: another interpreter, in the process group of the worker. Its
    fork is in that group too, and imports the program's own modules again, as with ``spawn``.
    """
    server = multiprocessing.forkserver._forkserver
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"\0mageflow-tests-{os.getpid()}-{os.urandom(8).hex()}")
    listener.listen()
    alive_r, alive_w = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(alive_w)
        try:
            multiprocessing.forkserver.main(listener.fileno(), alive_r, None)
        finally:
            os._exit(0)
    os.close(alive_r)
    server._forkserver_address = listener.getsockname()
    server._forkserver_alive_fd = alive_w
    server._forkserver_pid = pid
    listener.close()
    contexts = multiprocessing.get_context

    def get_context(method: str | None = None) -> BaseContext:
        return _ListenerContext() if method == "spawn" else contexts(method)

    multiprocessing.get_context = get_context  # type: ignore[assignment]


def run(program: Program) -> None:
    """Run a program, and then those that its forked children become, each at the outermost level."""
    while True:
        try:
            program()
        except NextProgram as found:
            program = found.program
        else:
            return


if __name__ == "__main__":
    sys.modules["program_server"] = sys.modules["__main__"]
    found = socket.socket(fileno=int(sys.argv[1]))
    run(lambda: serve(found))
