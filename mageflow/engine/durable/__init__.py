"""Durable tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mageflow.engine.model import Run, Task

if TYPE_CHECKING:
    from mageflow.engine.core import Engine
    from mageflow.engine.events import EventRecord


class Durable:
    """Durable side."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def run_finished(self, run: Run) -> None:
        """Child finished."""

    def event_happened(self, event: EventRecord) -> None:
        """Event."""

    def restore(self, task: Task) -> bool:
        """Restore."""
        return False

    def branch(self, task: Task, node_id: int) -> int:
        """Branch."""
        return 1
