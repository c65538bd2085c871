"""What waits in Hatchet."""

from collections.abc import Mapping
from dataclasses import dataclass

from mageflow._frozen import frozen
from mageflow.interceptors.events import Event

__all__ = ["QueueView", "WaitingRuns"]


@frozen
class WaitingRuns:
    """What waits of one task."""

    count: int
    oldest_seconds: float
    """How long the oldest has waited for its first attempt; 0 if none does."""


@dataclass(slots=True, eq=False)
class QueueView(Event):
    """What waits in Hatchet, read by the elected leader of the cluster every `Settings.queue_interval_s` seconds."""

    waiting: Mapping[str, WaitingRuns]
    """By task label. The tasks that the leader's client declares are always there."""
    valid_until: float
    """By ``time.monotonic()``: the reading must not be used after that."""
