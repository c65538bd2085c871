"""Log events: written with structlog, delivered through the standard library's logger ``mageflow``.

Handlers of the standard library get every event: Hatchet's log forwarder, root handlers, log shippers, ``caplog``.
structlog is never configured here. If the program has not configured it either, events pass through this module's own
processors and arrive as `LogFields`: a dict for `structlog.stdlib.ProcessorFormatter`, JSON text for every other
formatter. If the program has configured it, the program's processors apply.
"""

import functools
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar, Token
from typing import Any, Final

import structlog
from opentelemetry import trace
from structlog.typing import EventDict, WrappedLogger

from mageflow.telemetry.guards import Guard
from mageflow.telemetry.names import events
from mageflow.telemetry.names.events import LogEvent
from mageflow.telemetry.records import LEVELS, LogFields, now, write

__all__ = ["BOUND", "EventLog", "add_trace_context", "bind", "hand_over", "unbind"]

BOUND = Sequence[Token[Any]]
"""Returned by `bind`, for `unbind`."""


def add_trace_context(
    logger: WrappedLogger,  # noqa: ARG001 - structlog passes it
    method_name: str,  # noqa: ARG001
    event_dict: EventDict,
) -> EventDict:
    """Add ``trace_id``, ``span_id`` and ``trace_sampled`` of the current span. A structlog processor.

    Ids have 32 and 16 hex digits. Without a current span nothing is added.
    """
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event_dict["trace_id"] = f"{context.trace_id:032x}"
        event_dict["span_id"] = f"{context.span_id:016x}"
        event_dict["trace_sampled"] = context.trace_flags.sampled
    return event_dict


def hand_over(
    logger: WrappedLogger, method_name: str, event_dict: EventDict
) -> tuple[tuple[LogFields], dict[str, Any]]:
    """Pass the fields to the standard library as `LogFields`. A structlog processor, the last of its chain."""
    # Like structlog.stdlib.ProcessorFormatter.wrap_for_formatter, but other formatters get JSON.
    return (LogFields(event_dict),), {"extra": {"_logger": logger, "_name": method_name}}


_PROCESSORS = (
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


class EventLog:
    """Writes the events of `names.events`. Never raises."""

    def __init__(self, guard: Guard, forwarded_level: str = "debug") -> None:
        self._guard = guard
        self._forwarded_from = LEVELS.get(forwarded_level, logging.CRITICAL + 1)
        self.hide_from_log_forwarder: Callable[[], AbstractContextManager[object]] = nullcontext
        """Entered around events below the level that is forwarded to Hatchet."""
        self._target = logging.getLogger(events.LOGGER)
        self._own: Any = structlog.wrap_logger(
            self._target, processors=list(_PROCESSORS), wrapper_class=structlog.stdlib.BoundLogger
        ).bind()
        self._users: Any = structlog.wrap_logger(self._target)
        self._users_awaited: Any = structlog.wrap_logger(self._target, wrapper_class=structlog.stdlib.BoundLogger)
        """The program's processors, without a wrapper whose methods are coroutines (``AsyncBoundLogger``)."""

    @property
    def logger(self) -> Any:
        """A structlog logger for records of the program's own, with its processors if it has configured structlog."""
        return self._users if structlog.is_configured() else self._own

    def may_emit(self, event: LogEvent) -> bool:
        """Whether a handler may get this event at its usual level: its fields need not be computed otherwise."""
        return self._guard.may_record and self._target.isEnabledFor(LEVELS[event.level])

    def emit(self, event: LogEvent, level: str = "", /, **fields: object) -> None:
        """Write one event, at its usual level unless another is given."""
        guard = self._guard
        if not guard.may_record:
            return
        with guard.catching(event.name):
            level = level or event.level
            target = self._target
            if not target.isEnabledFor(LEVELS[level]):
                return
            if LEVELS[level] >= self._forwarded_from:
                self._write(event, level, fields)
                return
            with self.hide_from_log_forwarder():
                self._write(event, level, fields)

    def _write(self, event: LogEvent, level: str, fields: dict[str, object]) -> None:
        target = self._target
        if structlog.is_configured():
            config = structlog.get_config()
            last = config["processors"][-1:]
            if last != [hand_over]:
                if last and last[0] in _AS_EXTRA:
                    fields = {f"{key}_" if key in _RECORD_KEYS else key: value for key, value in fields.items()}
                logger = self._users_awaited if _is_awaited(config["wrapper_class"], level) else self._users
                getattr(logger, level)(event.name, **fields)
                return
        # _PROCESSORS written out: going through structlog would double the cost of an attempt.
        error = fields.pop("exc_info", None)
        record: EventDict = {
            "event": event.name,
            "level": level,
            "timestamp": now(),
            "logger": events.LOGGER,
            **structlog.contextvars.get_contextvars(),
            **fields,
        }
        write(
            target,
            level,
            add_trace_context(target, level, record),
            error if isinstance(error, BaseException) else None,
        )


def bind(fields: Mapping[str, object]) -> BOUND:
    """Add fields to every structlog record written in this context, until `unbind`."""
    # With structlog's own variables: its functions search them by name for each attempt.
    return [(_VARIABLES.get(name) or _variable(name)).set(value) for name, value in fields.items()]


def unbind(bound: BOUND) -> None:
    """Remove the fields and restore the values they replaced."""
    for token in bound:
        token.var.reset(token)


_VARIABLES: Final[dict[str, ContextVar[Any]]] = {}


def _variable(name: str) -> ContextVar[Any]:
    """The variable in which structlog keeps a bound field."""
    bound = structlog.contextvars.bind_contextvars(**{name: None})
    structlog.contextvars.reset_contextvars(**bound)
    variable = _VARIABLES[name] = bound[name].var
    return variable
