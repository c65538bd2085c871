"""Log events, delivered through the standard library's logger ``mageflow``.

Handlers of the standard library get every event: Hatchet's log forwarder, root handlers, log shippers, ``caplog``.
Events arrive as `LogFields`: a dict for `structlog.stdlib.ProcessorFormatter`, JSON text for every other formatter. If
the program has configured structlog, the program's processors apply. structlog is never configured here, and never
loaded (it would load rich too): a program that has not imported it cannot have configured it.
"""

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar, Token, copy_context
from typing import TYPE_CHECKING, Any, Final

from mageflow.telemetry.guards import Guard
from mageflow.telemetry.names import events
from mageflow.telemetry.names.events import LogEvent
from mageflow.telemetry.records import LEVELS, LogFields, add_trace_context, now, write

if TYPE_CHECKING:
    from mageflow.telemetry.structlog_loggers import StructlogLoggers

__all__ = ["BOUND", "EventLog", "bind", "unbind"]

BOUND = Sequence[Token[Any]]
"""Returned by `bind`, for `unbind`."""


class EventLog:
    """Writes the events of `names.events`. Never raises."""

    def __init__(self, guard: Guard, forwarded_level: str = "debug") -> None:
        self._guard = guard
        self._forwarded_from = LEVELS.get(forwarded_level, logging.CRITICAL + 1)
        self.hide_from_log_forwarder: Callable[[], AbstractContextManager[object]] = nullcontext
        """Entered around events below the level that is forwarded to Hatchet."""
        self._target = logging.getLogger(events.LOGGER)
        self._loggers: StructlogLoggers | None = None

    @property
    def logger(self) -> Any:
        """A structlog logger for records of the program's own, with its processors if it has configured structlog.

        Its first use loads structlog.
        """
        return self._structlog_loggers().for_program()

    def may_emit(self, event: LogEvent) -> bool:
        """Whether a handler may get this event at its usual level: its fields need not be computed otherwise."""
        return self._guard.may_record and self._target.isEnabledFor(LEVELS[event.level])

    def logs_attempts(self) -> bool:
        """Whether a handler may get the event at the end of an attempt."""
        return self.may_emit(events.TASK_FINISHED)

    def emit(
        self, event: LogEvent, level: str = "", trace: Mapping[str, object] | None = None, /, **fields: object
    ) -> None:
        """Write one event, at its usual level unless another is given.

        ``trace`` has what `add_trace_context` would add for the current span, where the caller knows it already.
        """
        guard = self._guard
        if not guard.may_record:
            return
        with guard.catching(event.name):
            level = level or event.level
            target = self._target
            if not target.isEnabledFor(LEVELS[level]):
                return
            if LEVELS[level] >= self._forwarded_from:
                self._write(event, level, fields, trace)
                return
            with self.hide_from_log_forwarder():
                self._write(event, level, fields, trace)

    def _write(
        self, event: LogEvent, level: str, fields: dict[str, object], trace: Mapping[str, object] | None
    ) -> None:
        structlog = _loaded_structlog()
        if structlog and structlog.is_configured() and self._structlog_loggers().write(event.name, level, fields):
            return
        target = self._target
        # The processors of StructlogLoggers written out: going through structlog would double the cost of an attempt.
        error = fields.pop("exc_info", None)
        record = LogFields()
        record["event"] = event.name
        record["level"] = level
        record["timestamp"] = now()
        record["logger"] = events.LOGGER
        _add_bound_fields(record)
        record.update(fields)
        if trace is None:
            add_trace_context(target, level, record)
        else:
            record.update(trace)
        write(target, level, record, error if isinstance(error, BaseException) else None)

    def _structlog_loggers(self) -> "StructlogLoggers":
        if self._loggers is None:
            from mageflow.telemetry.structlog_loggers import StructlogLoggers  # noqa: PLC0415 - it loads structlog

            self._loggers = StructlogLoggers(self._target)
        return self._loggers


# -- fields that are bound to a context --------------------------------------------------------------------------------

_PREFIX: Final = "structlog_"
"""What the names of structlog's variables begin with. structlog finds bound fields by the names of variables."""

_of_structlog: Final[dict[str, ContextVar[Any]]] = {}
_until_structlog: Final[dict[str, ContextVar[Any]]] = {}


def _loaded_structlog() -> Any:
    """Structlog if the program has imported it, and None before."""
    module = sys.modules.get("structlog")
    return module if hasattr(module, "is_configured") else None  # another thread may still be importing it


def bind(fields: Mapping[str, object]) -> BOUND:
    """Add fields to every structlog record written in this context, until `unbind`."""
    # With structlog's own variables: its functions search them by name for each attempt.
    structlog = _loaded_structlog()
    known = _of_structlog if structlog else _until_structlog
    return [(known.get(name) or _variable(name, structlog)).set(value) for name, value in fields.items()]


def unbind(bound: BOUND) -> None:
    """Remove the fields and restore the values they replaced."""
    for token in bound:
        token.var.reset(token)


def _variable(name: str, structlog: Any) -> ContextVar[Any]:
    """The variable in which structlog keeps a bound field; one that it finds later if it is not loaded yet."""
    if structlog is None:
        return _until_structlog.setdefault(name, ContextVar(f"{_PREFIX}{name}"))
    bound = structlog.contextvars.bind_contextvars(**{name: None})
    structlog.contextvars.reset_contextvars(**bound)
    variable = _of_structlog[name] = bound[name].var
    return variable


_names: Final[dict[ContextVar[Any], str]] = {}
"""The bound field of each variable of a context; empty for the variables that are not structlog's."""
_MOST_NAMES: Final = 1000
"""More variables than a program has, unless it makes new ones without end."""


def _add_bound_fields(record: dict[str, Any]) -> None:
    """Add what ``structlog.contextvars.get_contextvars`` returns."""
    for variable, value in copy_context().items():
        name = _names.get(variable)
        if name is None:
            if len(_names) >= _MOST_NAMES:
                _names.clear()
            is_bound = variable.name.startswith(_PREFIX)
            name = _names[variable] = variable.name[len(_PREFIX) :] if is_bound else ""
        if name and value is not Ellipsis:
            record[name] = value
