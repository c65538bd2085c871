"""Signals: how a part reports what happened without a reference to the parts that react.

``core.py`` connects every receiver, so the reactions to one signal and their order are written in one place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, ParamSpec

P = ParamSpec("P")


class Signal(Generic[P]):
    """A list of receivers that are called one after the other, in the order in which they were connected."""

    def __init__(self) -> None:
        self._receivers: list[Callable[P, object]] = []

    def connect(self, *receivers: Callable[P, object]) -> None:
        """Add receivers. ``send`` calls them after those that were connected before."""
        self._receivers += receivers

    def send(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Call every receiver. An exception of a receiver is raised here and ends the call."""
        for receiver in self._receivers:
            receiver(*args, **kwargs)
