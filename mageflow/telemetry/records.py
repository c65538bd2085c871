"""Log records: how an event is handed to the standard library's logging."""

import json
import logging
import sys
import time
from collections.abc import MutableMapping
from types import TracebackType
from typing import Any, Final

from opentelemetry import trace

from mageflow.telemetry.names import events
from mageflow.telemetry.names.events import LogEvent

__all__ = ["LEVELS", "LogFields", "add_trace_context", "now", "write", "write_raw"]

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}

_encode = json.JSONEncoder(default=str).encode


class LogFields(dict[str, Any]):
    """The fields of one event. Its text is JSON, rendered only when a handler needs it."""

    def __str__(self) -> str:
        return _encode(self)

    __repr__ = __str__


def add_trace_context(
    logger: Any,  # noqa: ARG001 - structlog passes it
    method_name: str,  # noqa: ARG001 - as above
    event_dict: MutableMapping[str, Any],
) -> MutableMapping[str, Any]:
    """Add ``trace_id``, ``span_id`` and ``trace_sampled`` of the current span. A structlog processor.

    Ids have 32 and 16 hex digits. Without a current span nothing is added.
    """
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event_dict["trace_id"] = f"{context.trace_id:032x}"
        event_dict["span_id"] = f"{context.span_id:016x}"
        event_dict["trace_sampled"] = context.trace_flags.sampled
    return event_dict


def write(logger: logging.Logger, level: str, fields: LogFields, error: BaseException | None = None) -> None:
    """Write one event with a logger whose level is enabled for it. The record keeps ``fields`` itself.

    Makes the record itself: `logging.Logger.log` would search the stack for the caller, which costs more than the rest
    of the call and finds only mageflow's own code.
    """
    exc_info: tuple[type[BaseException], BaseException, TracebackType | None] | None = None
    if error is not None:
        exc_info = (type(error), error, error.__traceback__)
    record = logger.makeRecord(
        logger.name, LEVELS[level], "mageflow/telemetry", 0, fields, (), exc_info, fields["event"]
    )
    # With these attributes structlog.stdlib.ProcessorFormatter reads the message as a dict of fields.
    record.__dict__["_logger"] = logger
    record.__dict__["_name"] = level
    logger.handle(record)


def now() -> str:
    """The current time as in every record: ISO 8601 in UTC."""
    # The text of the second is kept: the microseconds are a third of the cost of the whole.
    microseconds = time.time_ns() // 1000
    second, micros = divmod(microseconds, 1_000_000)
    known, text = _second[0]
    if second != known:
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        _second[0] = second, text
    return f"{text}.{micros:06d}Z"


_second: list[tuple[int, str]] = [(-1, "")]
"""The last second of `now`, and its text. One tuple, so that threads never mix two seconds."""


def write_raw(event: LogEvent, **fields: object) -> None:
    """Write an event without structlog and without context fields, for reports that these have failed.

    Where the program's own logging raises, it goes to stderr: an event that a handler refuses reaches no other handler.
    """
    logger = logging.getLogger(events.LOGGER)
    if logger.isEnabledFor(LEVELS[event.level]):
        known = {"event": event.name, "level": event.level, "timestamp": now(), "logger": events.LOGGER}
        record = LogFields({**known, **fields})
        try:
            write(logger, event.level, record)
        except Exception:  # noqa: BLE001 - the logging of the program may raise anything
            sys.stderr.write(f"{record}\n")
