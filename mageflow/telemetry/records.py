"""Log records: how an event is handed to the standard library's logging."""

import json
import logging
from collections.abc import MutableMapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final

from mageflow.telemetry.names import events
from mageflow.telemetry.names.events import LogEvent

__all__ = ["LEVELS", "LogFields", "now", "write", "write_raw"]

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


def write(
    logger: logging.Logger, level: str, fields: MutableMapping[str, Any], error: BaseException | None = None
) -> None:
    """Write one event with a logger whose level is enabled for it.

    Makes the record itself: `logging.Logger.log` would search the stack for the caller, which costs more than the rest
    of the call and finds only mageflow's own code.
    """
    exc_info: tuple[type[BaseException], BaseException, TracebackType | None] | None = None
    if error is not None:
        exc_info = (type(error), error, error.__traceback__)
    record = logger.makeRecord(
        logger.name, LEVELS[level], "mageflow/telemetry", 0, LogFields(fields), (), exc_info, fields["event"]
    )
    # With these attributes structlog.stdlib.ProcessorFormatter reads the message as a dict of fields.
    record.__dict__["_logger"] = logger
    record.__dict__["_name"] = level
    logger.handle(record)


def now() -> str:
    """The current time as in every record: ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def write_raw(event: LogEvent, **fields: object) -> None:
    """Write an event without structlog and without context fields, for reports that these have failed."""
    logger = logging.getLogger(events.LOGGER)
    if logger.isEnabledFor(LEVELS[event.level]):
        known = {"event": event.name, "level": event.level, "timestamp": now(), "logger": events.LOGGER}
        write(logger, event.level, {**known, **fields})
