"""Keeps failures of telemetry away from tasks: each one is caught, counted and logged, and never raised.

There is one `Guard` per signal. It is also a circuit breaker: after `TRIP_AFTER` failures in a row at one site the
signal is not recorded for `REST_SECONDS`, so that a broken exporter does not cost every attempt an exception.
"""

import time
from collections.abc import Callable
from contextlib import suppress

from mageflow.telemetry.names import events
from mageflow.telemetry.records import write_raw

__all__ = ["Guard", "Guards"]

TRIP_AFTER = 100
REST_SECONDS = 60.0
LOG_EVERY_SECONDS = 60.0


class Guard:
    """Guards one signal.

    Code that may fail is written like this. It does nothing while the circuit breaker is open::

        if guards.trace.may_record:
            with guards.trace.catching("attempt.enter"):
                ...

    Code that must run in any case, for example to end a span, is written without the ``if``.
    """

    __slots__ = ("_blocks", "_guards", "_open_until", "disabled", "failures", "signal", "total")

    def __init__(self, guards: "Guards", signal: str) -> None:
        self._guards = guards
        self._open_until = 0.0
        self._blocks: dict[str, _Catching] = {}
        self.signal = signal
        """The ``signal`` label of ``mageflow_telemetry_errors_total``."""
        self.failures: dict[str, int] = {}
        """Failures in a row, by site. A success at one site does not reset another."""
        self.total = 0
        """Failures since the start of the process."""
        self.disabled = False
        """True if the settings switch the signal off."""

    @property
    def may_record(self) -> bool:
        """True if the signal may be recorded: it is enabled and its circuit breaker is closed."""
        if self.disabled:
            return False
        return self._open_until == 0.0 or self._close_after_rest()

    def _close_after_rest(self) -> bool:
        if self._guards.monotonic() < self._open_until:
            return False
        self._open_until = 0.0
        self.failures = dict.fromkeys(self.failures, TRIP_AFTER - 1)  # the next failure opens the breaker again
        return True

    def catching(self, site: str) -> "_Catching":
        """A block that catches every `Exception`. Cancellation and other `BaseException` pass."""
        # Kept, because an attempt enters ten of them: to make them anew takes 2 µs.
        block = self._blocks.get(site)
        if block is None:
            block = self._blocks[site] = _Catching(self, site)
        return block

    def failed(self, site: str, error: BaseException) -> None:
        """Count a failure, log it at most once a minute per site, and open the breaker after too many. Never raises."""
        self.failures[site] = failures = self.failures.get(site, 0) + 1
        if failures >= TRIP_AFTER:
            self._open_until = self._guards.monotonic() + REST_SECONDS
        self.count(site, type(error).__name__)

    def count(self, site: str, error_type: str) -> None:
        """Count and log an anomaly that does not affect the breaker, for example a clock that goes back."""
        self.total += 1
        self._guards.report(self.signal, site, error_type)


class _Catching:
    """Has no state of its own, so that one may be entered several times at once, also by threads."""

    __slots__ = ("_guard", "_site")

    def __init__(self, guard: Guard, site: str) -> None:
        self._guard = guard
        self._site = site

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if error is None:
            if self._guard.failures:
                self._guard.failures.pop(self._site, None)
            return False
        if isinstance(error, Exception):
            self._guard.failed(self._site, error)
            return True
        return False


class Guards:
    """The guards of all signals of one client.

    Args:
        count: Adds one to ``mageflow_telemetry_errors_total`` for a signal. May raise.
        monotonic: Seconds of a clock that never goes back.
    """

    def __init__(self, count: Callable[[str], None], *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._count = count
        self._logged_at: dict[tuple[str, str], float] = {}
        self._suppressed: dict[tuple[str, str], int] = {}
        self.monotonic = monotonic
        self.metric = Guard(self, "metrics")
        self.trace = Guard(self, "traces")
        self.log = Guard(self, "logs")
        self.context = Guard(self, "context")
        self.exposition = Guard(self, "exposition")
        self.clock = Guard(self, "clock")

    def report(self, signal: str, site: str, error_type: str) -> None:
        """Count a failure and log it. Never raises."""
        with suppress(Exception):
            self._count(signal)
        with suppress(Exception):
            self._log(signal, site, error_type)

    def _log(self, signal: str, site: str, error_type: str) -> None:
        key = (signal, site)
        now = self.monotonic()
        logged_at = self._logged_at.get(key)
        if logged_at is not None and now - logged_at < LOG_EVERY_SECONDS:
            self._suppressed[key] = self._suppressed.get(key, 0) + 1
            return
        self._logged_at[key] = now
        # Not through the event log, which may be the part that has failed.
        write_raw(
            events.TELEMETRY_ERROR,
            signal=signal,
            site=site,
            error_type=error_type,
            suppressed=self._suppressed.pop(key, 0),
        )
