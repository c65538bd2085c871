"""What an engine in a process of its own writes to standard error, brought into this process's log.

A warning of the engine (a run of a workflow nobody registered, a method it does not have) is for whoever runs the
engine, and that is the parent: it has the terminal, or pytest's report.
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


class ErrorOutput:
    """Reads a pipe to its end in a thread, so that its writer never waits; keeps lines until they may be logged.

    Args:
        stream: of the engine process; closed at its end.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._kept: deque[str] = deque(maxlen=_LINES_KEPT)
        self._lock = threading.Lock()
        self._logs = False
        # A line that is no record belongs to the one before it: a traceback.
        self._last = (logging.WARNING, "mageflow.engine")
        self._thread = threading.Thread(target=self._read, args=(stream,), name="mageflow-engine-output", daemon=True)
        self._thread.start()

    def log(self) -> None:
        """From now on log each line, under the engine's own logger and level; also what was kept so far."""
        with self._lock:
            self._logs = True
            for line in self._kept:
                self._log(line)
            self._kept.clear()

    def text(self) -> str:
        """Return the last lines that were not logged; waits for the end of a process that has ended."""
        self.close()
        with self._lock:
            return "\n".join(self._kept)

    def close(self) -> None:
        """Wait until everything is read of a process that has ended."""
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
