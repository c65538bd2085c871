"""Forwards the standard error of an engine process to the log of this process.

The engine's warnings (a run of an unregistered workflow, a method that it does not have) are for the person who started
it. The parent process has that person's terminal, or pytest's report.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import deque
from typing import IO

_LINES_KEPT = 200
_RECORD = re.compile(r"\d{4}-\d\d-\d\d \S+ (DEBUG|INFO|WARNING|ERROR|CRITICAL) (\S+) (.*)")
_STOP_SECONDS = 2.0


class StderrReader:
    """Reads the pipe in a thread, so that the engine never waits for it. Keeps lines until they may be logged.

    Args:
        stream: standard error of the engine process. It is closed at its end.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._kept: deque[str] = deque(maxlen=_LINES_KEPT)
        self._lock = threading.Lock()
        self._logs = False
        # A line that is not a log record belongs to the record before it, as in a traceback.
        self._last = (logging.WARNING, "mageflow.engine")
        self._thread = threading.Thread(target=self._read, args=(stream,), name="mageflow-engine-output", daemon=True)
        self._thread.start()

    def log(self) -> None:
        """Log the kept lines and every later line, with the logger and the level that the engine used."""
        with self._lock:
            self._logs = True
            for line in self._kept:
                self._log(line)
            self._kept.clear()

    def text(self) -> str:
        """Return the last 200 lines that were not logged. Waits until the output of an ended process is read."""
        self.close()
        with self._lock:
            return "\n".join(self._kept)

    def close(self) -> None:
        """Wait until the output of an ended process is read, at most 2 seconds."""
        self._thread.join(_STOP_SECONDS)

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                text = line.decode(errors="replace").rstrip()
                with self._lock:
                    if self._logs:
                        self._log(text)
                    else:
                        self._kept.append(text)

    def _log(self, line: str) -> None:
        record = _RECORD.fullmatch(line)
        if record is not None:
            self._last = (logging.getLevelNamesMapping()[record[1]], record[2])
            line = record[3]
        level, name = self._last
        logging.getLogger(name).log(level, "%s", line)
