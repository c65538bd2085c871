"""``mageflow`` and ``python`` for a shell: what it starts by these names is a fork, as in `tests.processes.client`.

Both are small programs in a folder of ``PATH``. Such a program asks this process for the one that is meant, lends it
its standard streams, gives its signals on, and ends as it ends.
"""

import json
import os
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.processes.client import FORKS

__all__ = ["forking_commands"]

LENDS = Path(__file__).with_name("lends.py")

PROGRAMS = {"mageflow": ["-m", "mageflow"], "python": []}
"""By name, the arguments of the interpreter before those of the shell."""


@contextmanager
def forking_commands(folder: Path) -> Generator[list[str]]:
    """The folders for the beginning of a ``PATH``: one, or none where every program is a new interpreter."""
    if not FORKS:
        yield []
        return
    address = f"\0mageflow-tests-shell-{os.getpid()}-{os.urandom(8).hex()}"
    for name, first in PROGRAMS.items():
        command = [sys.executable, "-I", "-S", str(LENDS), address[1:], *first]
        file = folder / name
        file.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
        file.chmod(0o755)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(address)
        server.listen()
        threading.Thread(target=_serve, args=[server], daemon=True).start()
        try:
            yield [str(folder)]
        finally:
            server.shutdown(socket.SHUT_RDWR)


def _serve(server: socket.socket) -> None:
    with suppress(OSError):  # the end of the block
        while True:
            threading.Thread(target=_run, args=[server.accept()[0]], daemon=True).start()


def _run(asked: socket.socket) -> None:
    with asked:
        message, streams, _, _ = socket.recv_fds(asked, 1 << 20, 3)
        given = json.loads(message)
        try:
            stdin, stdout, stderr = streams
            process = subprocess.Popen(
                [sys.executable, *given["arguments"]],
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                cwd=given["directory"],
                env=given["environment"],
            )
        finally:
            for each in streams:
                os.close(each)
        with suppress(BrokenPipeError):
            asked.send(str(process.pid).encode())
        status = process.wait()
        with suppress(BrokenPipeError):
            asked.send(str(status).encode())
