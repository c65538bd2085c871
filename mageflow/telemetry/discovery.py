"""Prometheus file service discovery for workers that share a host: one entry per running worker.

Owns the files ``mageflow-<host>-<port>.json`` in ``MAGEFLOW_METRICS_SD_DIR``. All labels start with ``__meta_``: they
serve relabelling and pruning, and Prometheus adds them to no series.
"""

import json
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

from mageflow.files import PUBLIC, write_in_one_step

__all__ = ["ServiceDirectory"]

_ANY_ADDRESS = ("", "0.0.0.0", "::")  # noqa: S104 - compared with, not bound to
_PREFIX = "__meta_mageflow_"


class ServiceDirectory:
    """The entries of this host in one directory. Every method may raise `OSError`."""

    def __init__(self, directory: Path, *, host: str | None = None) -> None:
        self._directory = directory
        self._host = host or socket.gethostname()
        self._own: Path | None = None

    def prune(self) -> dict[str, list[int]]:
        """Remove entries of processes of this host that have ended.

        Returns:
            The ports of the removed workers, by worker name: a restarted worker takes its old port.
        """
        ports: dict[str, list[int]] = {}
        for path in sorted(self._directory.glob(f"mageflow-{self._host}-*.json")):
            labels = _labels(path)
            if labels is None or _is_alive(labels):
                continue
            with suppress(ValueError):
                port = int(path.stem.rpartition("-")[2])
                ports.setdefault(labels.get(f"{_PREFIX}worker", ""), []).append(port)
            path.unlink(missing_ok=True)
        return ports

    def publish(self, address: str, port: int, worker: str) -> Path:
        """Write this worker's entry in one step. Replaces the entry of an earlier owner of the port."""
        self._directory.mkdir(parents=True, exist_ok=True)
        pid = os.getpid()
        host = self._host if address in _ANY_ADDRESS else address
        entry = [
            {
                "targets": [f"[{host}]:{port}" if ":" in host else f"{host}:{port}"],
                "labels": {
                    f"{_PREFIX}host": self._host,
                    f"{_PREFIX}pid": str(pid),
                    f"{_PREFIX}started": _started(pid),
                    f"{_PREFIX}worker": worker,
                },
            }
        ]
        path = self._directory / f"mageflow-{self._host}-{port}.json"
        # Prometheus, often another user, reads the file. It watches *.json, and the unfinished file has another suffix.
        write_in_one_step(path, json.dumps(entry, indent=2), mode=PUBLIC)
        self._own = path
        return path

    def withdraw(self) -> None:
        """Remove this worker's entry, unless another process has taken over the port."""
        if self._own is not None:
            labels = _labels(self._own)
            if labels is not None and labels.get(f"{_PREFIX}pid") == str(os.getpid()):
                self._own.unlink(missing_ok=True)
            self._own = None


def _labels(path: Path) -> dict[str, str] | None:
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
        return {str(key): str(value) for key, value in document[0]["labels"].items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None  # not an entry of mageflow, or removed meanwhile


def _is_alive(labels: dict[str, str]) -> bool:
    try:
        pid = int(labels.get(f"{_PREFIX}pid", ""))
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ValueError, ProcessLookupError, OverflowError):
        return False
    # Another process may have the same number by now.
    return labels.get(f"{_PREFIX}started", "") in ("", _started(pid))


def _started(pid: int) -> str:
    """The kernel's start time of a process (field 22 of ``/proc/<pid>/stat``, see proc(5)); empty elsewhere."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
