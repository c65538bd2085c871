"""What stands between telemetry and the task: every failure ends here, counted and told, never raised.

One `Signal` per kind of telemetry. After `TRIP_AFTER` failures in a row at one site a signal is left alone for
`REST_SECONDS`, so that a broken exporter does not cost every attempt the price of an exception.
"""

import time
from collections.abc import Callable
from contextlib import suppress

from mageflow.telemetry.names import events
from mageflow.telemetry.records import write_raw

__all__ = ["Guard", "Signal"]

TRIP_AFTER = 100
REST_SECONDS = 60.0
LOG_EVERY_SECONDS = 60.0


class Signal:
    """One kind of telemetry and its breaker.

    Everything that could fail is written like this, and nothing is left half done when it does::

        if signal.closed:
            with signal.at("attempt.enter"):
                ...
    """

    __slots__ = ("_guard", "_open_until", "disabled", "failures", "name", "total")

    def __init__(self, guard: "Guard", name: str) -> None:
        self._guard = guard
        self._open_until = 0.0
        self.name = name
        self.failures: dict[str, int] = {}
        """In a row, by site: a step that works does not excuse another that does not."""
        self.total = 0
        """Since the start."""
        self.disabled = False
        """Switched off by the settings."""

    @property
    def closed(self) -> bool:
        """Whether to go on: neither switched off nor resting."""
        if self.disabled:
            return False
        return self._open_until == 0.0 or self._rested()

    def _rested(self) -> bool:
        if self._guard.monotonic() < self._open_until:
            return False
        self._open_until = 0.0
        self.failures = dict.fromkeys(self.failures, TRIP_AFTER - 1)  # one more failure and it rests again
        return True

    def at(self, site: str) -> "_Watch":
        """A block whose `Exception` ends here. Cancellation and other `BaseException` pass."""
        return _Watch(self, site)

    def failed(self, site: str, error: BaseException) -> None:
        """Count a failure, tell of it at most once a minute per site, and rest after too many. Never raises."""
        self.failures[site] = failures = self.failures.get(site, 0) + 1
        if failures >= TRIP_AFTER:
            self._open_until = self._guard.monotonic() + REST_SECONDS
        self.count(site, type(error).__name__)

    def count(self, site: str, error_type: str) -> None:
        """Count an oddity that is no failure of the signal itself, a clock that goes back for example."""
        self.total += 1
        self._guard.report(self, site, error_type)


class _Watch:
    __slots__ = ("_signal", "_site")

    def __init__(self, signal: Signal, site: str) -> None:
        self._signal = signal
        self._site = site

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if error is None:
            if self._signal.failures:
                self._signal.failures.pop(self._site, None)
            return False
        if isinstance(error, Exception):
            self._signal.failed(self._site, error)
            return True
        return False


class Guard:
    """All signals of one client."""

    def __init__(self, count: Callable[[str], None], *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._count = count
        self._told: dict[tuple[str, str], float] = {}
        self._suppressed: dict[tuple[str, str], int] = {}
        self.monotonic = monotonic
        self.metrics = Signal(self, "metrics")
        self.traces = Signal(self, "traces")
        self.logs = Signal(self, "logs")
        self.context = Signal(self, "context")
        self.exposition = Signal(self, "exposition")
        self.clock = Signal(self, "clock")

    def report(self, signal: Signal, site: str, error_type: str) -> None:
        """Add to ``mageflow_telemetry_errors_total`` and log, both as far as they work."""
        with suppress(Exception):
            self._count(signal.name)
        with suppress(Exception):
            self._tell(signal.name, site, error_type)

    def _tell(self, signal: str, site: str, error_type: str) -> None:
        key = (signal, site)
        now = self.monotonic()
        told = self._told.get(key)
        if told is not None and now - told < LOG_EVERY_SECONDS:
            self._suppressed[key] = self._suppressed.get(key, 0) + 1
            return
        self._told[key] = now
        # Not through the event log: that may be what has failed.
        write_raw(
            events.TELEMETRY_ERROR,
            signal=signal,
            site=site,
            error_type=error_type,
            suppressed=self._suppressed.pop(key, 0),
        )
