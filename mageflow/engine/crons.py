"""Crons."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mageflow.engine.model import Workflow

if TYPE_CHECKING:
    from mageflow.engine.core import Engine


class Crons:
    """All crons."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def replace_declared(self, workflow: Workflow, expressions: list[str], input_text: str) -> None:
        """Replace."""
