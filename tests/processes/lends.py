"""``lends.py ADDRESS ARGUMENTS...``: runs an interpreter with these arguments as `tests.processes.shell` starts it."""

import json
import os
import signal
import socket
import sys

with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
    server.connect(f"\0{sys.argv[1]}")
    asked = {"arguments": sys.argv[2:], "directory": os.getcwd(), "environment": dict(os.environ)}  # noqa: PTH109 - a text for JSON
    held = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT}
    signal.pthread_sigmask(signal.SIG_BLOCK, held)  # until there is a process for them
    socket.send_fds(server, [json.dumps(asked).encode()], [0, 1, 2])
    pid = int(server.recv(64) or sys.exit("the program could not be started"))
    for number in held:
        signal.signal(number, lambda number, _: os.kill(pid, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, held)
    status = int(server.recv(64) or -signal.SIGKILL)
if status < 0:
    signal.signal(-status, signal.SIG_DFL) if -status not in (signal.SIGKILL, signal.SIGSTOP) else None
    os.kill(os.getpid(), -status)
sys.exit(status)
