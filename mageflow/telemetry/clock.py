"""The skew between the clock of this process and that of Redis.

A clock that is ahead makes every queue wait too long, and none of them looks wrong. So the clocks are compared.
"""

import time
from collections.abc import Iterable
from typing import Final

from mageflow.interceptors import ClockReading
from mageflow.telemetry.gauges import Sample
from mageflow.telemetry.names import events, metrics
from mageflow.telemetry.recorder import Recorder

__all__ = ["CLOCK_TOLERANCE_SECONDS", "ClockSkew"]

CLOCK_TOLERANCE_SECONDS: Final = 1.0
"""A larger difference between the clocks of two hosts is counted as a telemetry error."""

_LARGEST_ERROR_SECONDS: Final = 0.5
_ADVICE: Final = "synchronise both clocks (NTP): until then queue waits are wrong"


class ClockSkew:
    """The newest reading of the clocks. A `GaugeSource`."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._reading: ClockReading | None = None
        self._is_skewed = False

    def update(self, reading: ClockReading) -> None:
        """Replace the reading. One that a slow round trip has made inexact is left out.

        While the skew is over a second beyond doubt, every reading is counted with ``signal="clock"``, as a negative
        queue wait is. The first one is logged.
        """
        if reading.error_seconds > _LARGEST_ERROR_SECONDS:
            return
        if self._reading is None:
            self._recorder.add_gauges(self)
        self._reading = reading
        was_skewed, distance = self._is_skewed, abs(reading.skew_seconds)
        self._is_skewed = distance - reading.error_seconds > CLOCK_TOLERANCE_SECONDS
        if not self._is_skewed:
            return
        guards = self._recorder.guards
        if guards.clock.may_record:
            with guards.clock.catching("skew"):
                self._recorder.count_error("clock")
        if not was_skewed:
            self._recorder.log.emit(
                events.CLOCK_SKEWED,
                skew_s=round(reading.skew_seconds, 3),
                error_s=round(reading.error_seconds, 3),
                advice=_ADVICE,
            )

    def samples(self) -> Iterable[Sample]:
        """One number; nothing before the first reading and while Redis does not answer."""
        reading = self._reading
        if reading is not None and time.monotonic() < reading.valid_until:
            yield metrics.CLOCK_SKEW, (), reading.skew_seconds
