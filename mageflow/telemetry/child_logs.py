"""The logs of a child process, set up like those of its parent. This module loads no structlog: `configure` does."""

from collections.abc import Callable
from typing import Final

__all__ = ["prepare_logs_of_child", "set_up_children_like"]

Apply = Callable[[], None]
"""Sets up the logs of the process in which it is called. It can be pickled."""

_current: Final[list[Callable[[], Apply]]] = []


def set_up_children_like(prepare: Callable[[], Apply]) -> None:
    """Give the children of this process what ``prepare`` makes when they start, in place of an earlier one."""
    _current[:] = [prepare]


def prepare_logs_of_child() -> Apply | None:
    """What sets up the logs of a child process like those of this one; None without `configure`."""
    return _current[0]() if _current else None
