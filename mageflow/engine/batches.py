"""Batch tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mageflow.engine.core import Engine


class Batch:
    """A flushed batch."""


class Batches:
    """Buffers."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def timed_out(self, batch: Batch, error: str) -> None:
        """Fail all items."""

    def worker_lost(self, batch: Batch) -> None:
        """Requeue all items."""

    def event(self, event: object) -> None:
        """Take a batch event."""
