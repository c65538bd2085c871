"""How `configure` writes a log record: as one line of JSON, or as text for a person."""

import io
import logging
import sys
from collections.abc import Mapping, MutableMapping
from types import TracebackType
from typing import Any, Final, Literal, TextIO

import structlog

from mageflow.error_text import place_of, text_of
from mageflow.telemetry.records import LogFields, add_trace_context
from mageflow.terminal import printable

__all__ = [
    "SHARED_PROCESSORS",
    "ExceptionDetail",
    "Formatter",
    "console_formatter",
    "json_formatter",
]

ExceptionDetail = Literal["type", "message", "full"]

SHARED_PROCESSORS: Final[tuple[Any, ...]] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    add_trace_context,
)
"""Run for every record, from structlog and from the standard library."""

_EXCEPTION_KEYS: Final = frozenset({"exc_info", "stack_info"})
_QUOTES_EXCEPTIONS: Final = frozenset({"hatchet", "asyncio"})
"""Loggers that add the text of a program's exception to their message, below its first line."""

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


class Formatter(structlog.stdlib.ProcessorFormatter):
    """A formatter of `configure`."""

    def format(self, record: logging.LogRecord) -> str:
        """Render the record. The base class leaves out the exception of a record whose message is a dictionary."""
        fields: object = record.msg
        if isinstance(fields, LogFields) and record.exc_info:
            record = logging.makeLogRecord({**vars(record), "msg": {**fields, "exc_info": record.exc_info}})
        return super().format(record)


class _JsonFormatter(Formatter):
    """Renders mageflow's events directly: the processors would add a third to their cost."""

    def format(self, record: logging.LogRecord) -> str:
        fields: object = record.msg
        if isinstance(fields, LogFields) and not record.exc_info and _EXCEPTION_KEYS.isdisjoint(fields):
            return str(fields)
        return super().format(record)


def json_formatter(detail: ExceptionDetail) -> Formatter:
    """One JSON object per line. An exception is its class; its text is there only if ``detail`` allows it."""
    return _JsonFormatter(
        foreign_pre_chain=SHARED_PROCESSORS,
        processors=[
            _first_line_of_quotes(detail),
            _JsonFormatter.remove_processors_meta,
            _exception_as_fields(detail),
            structlog.processors.JSONRenderer(default=str),
        ],
    )


def console_formatter(stream: TextIO) -> Formatter:
    """Text for a person, with colours if the stream is a terminal. Data cannot control the terminal."""
    renderer = structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=_plain_traceback)
    return Formatter(
        foreign_pre_chain=SHARED_PROCESSORS,
        processors=[Formatter.remove_processors_meta, _show_as_text, renderer],
    )


# -- exceptions in JSON ------------------------------------------------------------------------------------------------


def _exception_fields(exc_info: _ExcInfo, detail: ExceptionDetail) -> Mapping[str, str]:
    """The fields of an exception: ``exception``, ``raised_at`` (``module:line``) and ``message``, as far as allowed.

    With ``full``, ``exception`` is the traceback with the text; otherwise it is the name of the class.
    """
    kind, error, _ = exc_info
    if detail == "full":
        text = io.StringIO()
        structlog.dev.plain_traceback(text, exc_info)
        return {"exception": text.getvalue().strip("\n")}
    fields = {"exception": kind.__name__}
    if place := place_of(error):
        fields["raised_at"] = place
    return {**fields, "message": text_of(error)} if detail == "message" else fields


def _exception_as_fields(detail: ExceptionDetail) -> Any:
    def add(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        exc_info = _normalized(event.pop("exc_info", None))
        if exc_info is not None:
            event.update(_exception_fields(exc_info, detail))
        return event

    return add


def _normalized(exc_info: Any) -> _ExcInfo | None:
    if isinstance(exc_info, BaseException):
        return type(exc_info), exc_info, exc_info.__traceback__
    if exc_info and not isinstance(exc_info, tuple):
        exc_info = sys.exc_info()
    return exc_info if isinstance(exc_info, tuple) and len(exc_info) == 3 and exc_info[1] is not None else None  # noqa: PLR2004 - type, exception, traceback


def _first_line_of_quotes(detail: ExceptionDetail) -> Any:
    def cut(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        name, text = str(event.get("logger", "")), event.get("event")
        # With `full`, the same text is in the field of the exception, if the record has one.
        is_repeated = detail != "full" or _normalized(event.get("exc_info")) is not None
        if is_repeated and isinstance(text, str) and name.partition(".")[0] in _QUOTES_EXCEPTIONS:
            event["event"] = text.partition("\n")[0]
        return event

    return cut


# -- the console -------------------------------------------------------------------------------------------------------


def _plain_traceback(output: TextIO, exc_info: Any) -> None:
    """Write a traceback as plain text, without the values of local variables: they may be secrets."""
    text = io.StringIO()
    structlog.dev.plain_traceback(text, exc_info)
    output.write(printable(text.getvalue(), keep="\n"))


def _show_as_text(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape what a terminal acts on: a name or an error message of a user must not control it or forge a line."""
    for key, value in event.items():
        # Tracebacks keep their lines; every other value is one line.
        if isinstance(value, str):
            event[key] = printable(value, keep="\n" if key in {"exception", "stack"} else "")
        elif key not in _EXCEPTION_KEYS and not isinstance(value, int | float | bool | None):
            event[key] = printable(str(value))
    return event
