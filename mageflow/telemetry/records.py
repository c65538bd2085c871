"""What an event is when it reaches the standard library."""

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
    """The fields of one event. As text it is JSON, rendered when a handler asks for it and not before."""

    def __str__(self) -> str:
        return _encode(self)

    __repr__ = __str__


def write(
    logger: logging.Logger, level: str, fields: MutableMapping[str, Any], error: BaseException | None = None
) -> None:
    """Hand one event to a logger whose level lets it through.

    The record is made by hand: the walk up the stack that finds a caller costs more than all the rest, and would
    find this room.
    """
    exc_info: tuple[type[BaseException], BaseException, TracebackType | None] | None = None
    if error is not None:
        exc_info = (type(error), error, error.__traceback__)
    record = logger.makeRecord(
        logger.name, LEVELS[level], "mageflow/telemetry", 0, LogFields(fields), (), exc_info, fields["event"]
    )
    # What ProcessorFormatter (structlog.stdlib) looks for to take the message for a dict of fields.
    record.__dict__["_logger"] = logger
    record.__dict__["_name"] = level
    logger.handle(record)


def now() -> str:
    """The present as every record has it: ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def write_raw(event: LogEvent, **fields: object) -> None:
    """Write an event past structlog and past every context, for those who report that these failed."""
    logger = logging.getLogger(events.LOGGER)
    if logger.isEnabledFor(LEVELS[event.level]):
        known = {"event": event.name, "level": event.level, "timestamp": now(), "logger": events.LOGGER}
        write(logger, event.level, {**known, **fields})
