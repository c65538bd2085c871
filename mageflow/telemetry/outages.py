"""Outages of Redis, and the settlements that wait for their end."""

from collections.abc import Iterable

from mageflow.interceptors import PendingSettlements, RedisOutage
from mageflow.telemetry.gauges import Sample
from mageflow.telemetry.names import events, metrics
from mageflow.telemetry.recorder import Recorder

__all__ = ["SettlementGauge", "record_outage"]


class SettlementGauge:
    """The settlements of this process that Redis has not taken yet. A `GaugeSource`."""

    def __init__(self, recorder: Recorder) -> None:
        self._count = 0
        recorder.add_gauges(self)

    def update(self, event: PendingSettlements) -> None:
        """Replace the number."""
        self._count = event.count

    def samples(self) -> Iterable[Sample]:
        """One number, 0 in a process without any."""
        yield metrics.SETTLEMENTS_PENDING, (), float(self._count)


def record_outage(recorder: Recorder, event: RedisOutage) -> None:
    """Count an outage at its begin, and write one log event at its begin and one at its end."""
    if event.is_over:
        recorder.log.emit(
            events.REDIS_RECOVERED,
            reason=event.reason,
            operation=event.operation,
            duration_s=round(event.seconds, 3),
            failures=event.failures,
        )
        return
    if recorder.guards.metric.may_record:
        with recorder.guards.metric.catching("redis.outage"):
            recorder.instruments.inc(metrics.REDIS_OUTAGES, event.reason)
    recorder.log.emit(events.REDIS_OUTAGE, reason=event.reason, operation=event.operation, advice=event.advice)
