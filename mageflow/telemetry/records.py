"""What an event is when it reaches the standard library."""

import json
import logging
from typing import Any

from mageflow.telemetry.names import events
from mageflow.telemetry.names.events import LogEvent

__all__ = ["LogFields", "write_raw"]


class LogFields(dict[str, Any]):
    """The fields of one event. As text it is JSON, rendered when a handler asks for it and not before."""

    def __str__(self) -> str:
        return json.dumps(self, default=str)

    __repr__ = __str__


def write_raw(event: LogEvent, **fields: object) -> None:
    """Write an event past structlog, for those who report that structlog failed."""
    logger = logging.getLogger(events.LOGGER)
    logger.warning(LogFields(event=event.name, level=event.level, **fields))
