"""Rate limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mageflow.engine.model import Task

if TYPE_CHECKING:
    from mageflow.engine.core import Engine


class RateLimits:
    """Buckets."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def take(self, task: Task) -> bool:
        """Take units."""
        return True
