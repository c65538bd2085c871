"""How much processor time processes have used so far (Linux)."""

import os
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def _fields(process: str) -> list[str]:
    """The fields of a process from its state on; empty if it has ended."""
    try:
        return Path("/proc", process, "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def group_cpu_seconds(group: int) -> float:
    """CPU time of all processes of a group that run now (the SDK's worker has its listener in it)."""
    every = (_fields(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
    found = [fields for fields in every if fields and int(fields[2]) == group]
    return sum(int(fields[11]) + int(fields[12]) for fields in found) / TICKS


def cpu_seconds(pid: int) -> float:
    """CPU time of one process; 0 if it has ended."""
    fields = _fields(str(pid))
    return (int(fields[11]) + int(fields[12])) / TICKS if fields else 0.0
