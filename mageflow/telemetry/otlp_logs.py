"""Log records by OTLP: each JSON line of `configure`, sent in batches from a thread of its own.

The body of a record is the line that standard error gets, so a query of a log store reads the same fields whichever way
the line took. Severity, time and the ids of the span are the record's own, for stores that index them.
"""

import atexit
import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Final

from opentelemetry import _logs, trace
from opentelemetry.sdk import _logs as sdk
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource

from mageflow.distribution import installed_version
from mageflow.telemetry.last_seconds import last_seconds

__all__ = ["LogsPush"]

_SEVERITIES: Final = (
    (logging.CRITICAL, _logs.SeverityNumber.FATAL),
    (logging.ERROR, _logs.SeverityNumber.ERROR),
    (logging.WARNING, _logs.SeverityNumber.WARN),
    (logging.INFO, _logs.SeverityNumber.INFO),
)

_is_sending: ContextVar[bool] = ContextVar("is_sending_logs", default=False)
"""Set while a record is handed over or sent: what the exporter logs then must not be sent again."""

_Record: Any = getattr(sdk, "LogRecord", None) or _logs.LogRecord
"""Until OpenTelemetry 1.38 the SDK has a class of its own, which has the resource."""


class _Sender:
    """The exporter, with its own log records marked."""

    def __init__(self, exporter: Any) -> None:
        self._exporter = exporter

    def export(self, batch: Sequence[Any]) -> Any:
        """Send a batch. Waits for the network."""
        token = _is_sending.set(True)
        try:
            return self._exporter.export(batch)
        finally:
            _is_sending.reset(token)

    def shutdown(self) -> None:
        """Stop repeating what was not accepted."""
        self._exporter.shutdown()


class LogsPush(logging.Handler):
    """Sends every record it gets, as its formatter renders it. Never waits for the network.

    Records wait in a queue of the SDK (``OTEL_BLRP_MAX_QUEUE_SIZE``, 2048), whose oldest are dropped while it is full.

    Args:
        exporter: Waits for the network, in a thread of the SDK only.
        attributes: Of the resource: what this process is.
    """

    def __init__(self, exporter: Any, attributes: Mapping[str, Any]) -> None:
        super().__init__()
        self.attributes: Final = {**attributes, "process.pid": os.getpid()}
        resource = Resource(self.attributes)
        self._extra = {"resource": resource} if hasattr(sdk, "LogRecord") else {}
        sender: Any = _Sender(exporter)
        self._processor = BatchLogRecordProcessor(sender)
        provider = sdk.LoggerProvider(resource, shutdown_on_exit=False)
        provider.add_log_record_processor(self._processor)
        self._logger = provider.get_logger("mageflow", installed_version())
        atexit.register(self.stop)

    def emit(self, record: logging.LogRecord) -> None:
        """Put the record into the queue, unless the exporter wrote it."""
        if _is_sending.get():
            return
        token = _is_sending.set(True)
        try:
            self._logger.emit(self._record(record))
        except Exception:  # noqa: BLE001 - as every handler of the standard library
            self.handleError(record)
        finally:
            _is_sending.reset(token)

    def stop(self) -> None:
        """Send what is left and end. Waits for 3 s at most; the SDK alone would wait half a minute."""
        atexit.unregister(self.stop)
        last = threading.Thread(target=self._processor.shutdown, name="mageflow-last-logs", daemon=True)
        try:
            last.start()
        except RuntimeError:  # the interpreter is too far on its way out for a thread
            return
        last.join(last_seconds())

    def _record(self, record: logging.LogRecord) -> Any:
        span = trace.get_current_span().get_span_context()
        severity = (number for level, number in _SEVERITIES if record.levelno >= level)
        return _Record(
            timestamp=int(record.created * 1e9),
            observed_timestamp=time.time_ns(),
            trace_id=span.trace_id,
            span_id=span.span_id,
            trace_flags=span.trace_flags,
            severity_text=record.levelname.lower(),
            severity_number=next(severity, _logs.SeverityNumber.DEBUG),
            body=self.format(record),
            attributes={},
            **self._extra,
        )
