"""How long the end of a process waits for collectors that are away: for those of spans, metrics and logs together."""

import time
from typing import Final

__all__ = ["last_seconds"]

_TOGETHER_SECONDS: Final = 3.0
_EACH_SECONDS: Final = 0.5
"""What is left for a collector that answers, after others have used up the time."""

_began: list[float] = []


def last_seconds() -> float:
    """The longest time to wait for one collector. The first call starts the clock, at the end of the process."""
    _began.append(time.monotonic())
    return max(_EACH_SECONDS, _began[0] + _TOGETHER_SECONDS - _began[-1])
