"""Decides the delays of staggered attempts in tests."""

from collections.abc import Generator
from contextlib import contextmanager

from mageflow.invocation.stagger import delay_overrides

__all__ = ["StaggerControl", "control_stagger"]


class StaggerControl:
    """How long staggered attempts of this process sleep. `control_stagger` makes one; it begins with 0 s.

    It may be changed at any time, from any thread, and acts on attempts that begin afterwards.

    Attributes:
        drawn: The decided delays so far: the name of the task and its delay in seconds, the oldest first.
    """

    def __init__(self) -> None:
        self._seconds: float | None = 0.0
        self.drawn: list[tuple[str, float]] = []

    def fix(self, seconds: float) -> None:
        """Let each attempt sleep this long, or its whole window if that is shorter.

        Args:
            seconds: From 0.

        Raises:
            ValueError: It is negative, or no number.
        """
        if not seconds >= 0:
            raise ValueError(f"a delay is 0 s or more, not {seconds}")
        self._seconds = seconds

    def whole_window(self) -> None:
        """Let each attempt sleep for the longest time it may draw: its ``wait_delta``."""
        self._seconds = None

    def _decide(self, task: str, window_seconds: float) -> float:
        seconds = window_seconds if self._seconds is None else min(self._seconds, window_seconds)
        self.drawn.append((task, seconds))
        return seconds


@contextmanager
def control_stagger() -> Generator[StaggerControl]:
    """Decide the delays of every client of this process while the block runs. Blocks may be nested: the inner one wins.

    Yields:
        The control, which begins with 0 s.
    """
    control = StaggerControl()
    decide = control._decide  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - the control is ours
    delay_overrides.append(decide)
    try:
        yield control
    finally:
        delay_overrides.remove(decide)
