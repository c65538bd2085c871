"""Starts processes that use locks (``process_main.py``), sends them signals and reads their lines of JSON."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent


class LockProcess:
    """One process that uses locks."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, mode: str, url: str, *arguments: object) -> "LockProcess":
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.locks.process_main",
            mode,
            url,
            *(str(each) for each in arguments),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=2**24,
        )
        return cls(process)

    async def line(self, within: float = 90.0) -> dict[str, Any]:
        """The next line it prints, parsed; an empty dictionary when it has ended."""
        assert self._process.stdout is not None
        async with asyncio.timeout(within):
            text = await self._process.stdout.readline()
        return json.loads(text) if text else {}

    async def event(self, name: str, within: float = 90.0) -> dict[str, Any]:
        """Skip lines up to the one of this event."""
        while True:
            line = await self.line(within)
            assert line, f"ended without the event {name!r}"
            if line.get("event") == name:
                return line

    async def remaining(self, within: float = 120.0) -> list[dict[str, Any]]:
        """Every further line until it ends; its exit status must be 0."""
        lines: list[dict[str, Any]] = []
        while line := await self.line(within):
            lines.append(line)
        assert await self._process.wait() == 0
        return lines

    def proceed(self) -> None:
        """Let a holder leave its block."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")

    def send(self, number: signal.Signals) -> None:
        os.kill(self._process.pid, number)

    def send_if_alive(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            self.send(number)

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        # Closing the transport now keeps its destructor from complaining after the loop is gone.
        self._process._transport.close()  # type: ignore[attr-defined]
