"""What the package does with structlog once a program has loaded it. Everything else works without it."""

import functools
import inspect
import logging
from collections.abc import Mapping
from typing import Any, Final

import structlog

from mageflow.telemetry.records import LogFields, add_trace_context

__all__ = ["StructlogLoggers", "hand_over"]


def hand_over(logger: Any, method_name: str, event_dict: Mapping[str, Any]) -> tuple[tuple[LogFields], dict[str, Any]]:
    """Pass the fields to the standard library as `LogFields`. A structlog processor, the last of its chain."""
    # Like structlog.stdlib.ProcessorFormatter.wrap_for_formatter, but other formatters get JSON.
    return (LogFields(event_dict),), {"extra": {"_logger": logger, "_name": method_name}}


_PROCESSORS: Final = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    add_trace_context,
    structlog.processors.format_exc_info,
    hand_over,
)


_AS_EXTRA: Final = (
    structlog.stdlib.render_to_log_kwargs,
    getattr(structlog.stdlib, "render_to_log_args_and_kwargs", structlog.stdlib.render_to_log_kwargs),
)
"""Processors that turn every field into an attribute of the log record, which refuses names of its own attributes."""

_RECORD_KEYS: Final = frozenset(vars(logging.makeLogRecord({}))) - {"exc_info", "stack_info"} | {"message", "asctime"}


@functools.lru_cache(maxsize=16)
def _is_awaited(wrapper: type[Any] | None, level: str) -> bool:
    return inspect.iscoroutinefunction(getattr(wrapper, level, None))


class StructlogLoggers:
    """Loggers over one logger of the standard library, with the package's processors and with the program's.

    Args:
        target: Gets their records.
    """

    def __init__(self, target: logging.Logger) -> None:
        self._own: Any = structlog.wrap_logger(
            target, processors=list(_PROCESSORS), wrapper_class=structlog.stdlib.BoundLogger
        ).bind()
        self._users: Any = structlog.wrap_logger(target)
        self._users_awaited: Any = structlog.wrap_logger(target, wrapper_class=structlog.stdlib.BoundLogger)
        """The program's processors, without a wrapper whose methods are coroutines (``AsyncBoundLogger``)."""

    def for_program(self) -> Any:
        """A logger for records of the program's own, with its processors if it has configured structlog."""
        return self._users if structlog.is_configured() else self._own

    def write(self, event: str, level: str, fields: dict[str, object]) -> bool:
        """Write an event with the processors of the program, which has configured structlog.

        Returns:
            False, and nothing is written, if these end as `configure` sets them up: the caller writes it directly.
        """
        config = structlog.get_config()
        last = config["processors"][-1:]
        if last == [hand_over]:
            return False
        if last and last[0] in _AS_EXTRA:
            fields = {f"{key}_" if key in _RECORD_KEYS else key: value for key, value in fields.items()}
        logger = self._users_awaited if _is_awaited(config["wrapper_class"], level) else self._users
        getattr(logger, level)(event, **fields)
        return True
