"""Global logging as `configure` sets it up: one root handler, and nothing beside it on the standard streams.

Libraries write past the root handler: the Hatchet SDK has a handler of its own on standard output, and Python prints
warnings and uncaught exceptions itself. Each of these would be a line that a log store cannot parse.
"""

import logging
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TextIO

import structlog

from mageflow.telemetry.child_logs import set_up_children_like
from mageflow.telemetry.log_format import (
    SHARED_PROCESSORS,
    ExceptionDetail,
    Formatter,
    console_formatter,
    json_formatter,
)
from mageflow.telemetry.otlp_variables import logs_by_otlp
from mageflow.telemetry.run_lines import (
    ALWAYS,
    HATCHET_LOGGERS,
    drop_run_lines,
    drop_run_lines_early,
    drops_run_lines,
    logged_actions,
    note_actions,
)
from mageflow.telemetry.structlog_loggers import hand_over

if TYPE_CHECKING:
    from mageflow.telemetry.otlp_logs import LogsPush

__all__ = ["LogSetup"]


@dataclass(frozen=True)
class LogSetup:
    """What `configure` was called with, but for where it writes. It can be pickled."""

    kind: Literal["json", "console"]
    level: int | str
    exception_detail: ExceptionDetail
    has_run_lines: bool
    """Whether the lines that the SDK writes for every run stay."""

    def apply(self, stream: TextIO, push: "LogsPush | None") -> None:
        """Replace the root handler of an earlier call, and take over the handlers on the standard streams.

        Args:
            stream: Gets every record that the root logger lets through.
            push: Gets every record too, as JSON.
        """
        handler = _RootHandler(stream)
        handler.setFormatter(
            json_formatter(self.exception_detail) if self.kind == "json" else console_formatter(stream)
        )
        structlog.configure(
            processors=[*SHARED_PROCESSORS, hand_over],
            wrapper_class=structlog.stdlib.BoundLogger,
            logger_factory=structlog.stdlib.LoggerFactory(),
            cache_logger_on_first_use=False,
        )
        root = logging.getLogger()
        for each in [each for each in root.handlers if isinstance(each, _RootHandler)]:
            root.removeHandler(each)
        drop_run_lines(handler, enabled=not self.has_run_lines)
        if push is not None:
            push.setFormatter(json_formatter(self.exception_detail))
            drop_run_lines(push, enabled=not self.has_run_lines)
        for logger in _loggers():
            _take_over(logger, handler, push)
        for name in HATCHET_LOGGERS:
            _take_over_later(logging.getLogger(name), handler, push)
            drop_run_lines_early(logging.getLogger(name), _TakeOver, enabled=not self.has_run_lines)
        root.addHandler(handler)
        if push is not None:
            root.addHandler(push)
        root.setLevel(self.level)
        _log_what_python_prints(enabled=self.kind == "json")
        set_up_children_like(partial(self._for_child, stream, push))

    def _for_child(self, stream: TextIO, push: "LogsPush | None") -> Callable[[], None]:
        """What applies this in a child process. It can be pickled."""
        return partial(
            _apply_in_child,
            self,
            # A child has the standard streams of its parent, and no other stream.
            is_stdout=stream in {sys.stdout, sys.__stdout__},
            pushed=None if push is None else push.attributes,
            actions=logged_actions(),
        )


def _apply_in_child(
    setup: LogSetup, *, is_stdout: bool, pushed: Mapping[str, Any] | None, actions: Collection[str]
) -> None:
    push, exporter = None, logs_by_otlp() if pushed is not None else None
    if pushed is not None and exporter is not None:
        from mageflow.telemetry.otlp_logs import LogsPush  # noqa: PLC0415 - only who sends logs needs the SDK

        push = LogsPush(exporter(), pushed)
    # The child runs no attempt, and cannot know the levels that the main block of the program has set.
    note_actions(actions, ALWAYS)
    setup.apply(sys.stdout if is_stdout else sys.stderr, push)


class _RootHandler(logging.StreamHandler[TextIO]):
    """The root handler of `configure`, so that a second call replaces it and leaves other handlers alone."""


# -- handlers on the standard streams ------------------------------------------------------------------------------


class _TakeOver(logging.Filter):
    """Takes over the handlers of a logger when it logs: they may have been added after `configure`."""

    def __init__(self, logger: logging.Logger, handler: _RootHandler, push: "LogsPush | None") -> None:
        super().__init__()
        self._logger = logger
        self._handler = handler
        self._push = push

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass."""
        _take_over(self._logger, self._handler, self._push)
        return True


def _take_over_later(logger: logging.Logger, handler: _RootHandler, push: "LogsPush | None") -> None:
    for each in [each for each in logger.filters if isinstance(each, _TakeOver)]:
        logger.removeFilter(each)
    logger.addFilter(_TakeOver(logger, handler, push))


def _take_over(logger: logging.Logger, handler: _RootHandler, push: "LogsPush | None") -> None:
    """Make a logger write to the standard streams only as ``handler`` does, each record once, and to the push."""
    for each in list(logger.handlers):
        # Subclasses have a purpose of their own, for example to capture records in a test.
        if type(each) is not logging.StreamHandler or each.formatter is handler.formatter:
            continue
        if each.stream in _standard_streams() or isinstance(each.formatter, Formatter):
            if logger.propagate:
                logger.removeHandler(each)
            else:
                each.setFormatter(handler.formatter)
                each.setStream(handler.stream)
                drop_run_lines(each, enabled=drops_run_lines(handler))
                if push is not None:  # the root handler does not see these records
                    logger.addHandler(push)


def _loggers() -> Iterator[logging.Logger]:
    yield logging.getLogger()
    for each in list(logging.Logger.manager.loggerDict.values()):
        if isinstance(each, logging.Logger):
            yield each


def _standard_streams() -> tuple[Any, ...]:
    return sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__


# -- what Python prints itself -------------------------------------------------------------------------------------

_log = logging.getLogger("python")


def _log_what_python_prints(*, enabled: bool) -> None:
    """Log warnings and uncaught exceptions, unless the program has hooks of its own."""
    logging.captureWarnings(enabled)
    _swap(sys, "excepthook", sys.__excepthook__, _uncaught, enabled=enabled)
    _swap(threading, "excepthook", threading.__excepthook__, _uncaught_in_thread, enabled=enabled)
    _swap(sys, "unraisablehook", sys.__unraisablehook__, _unraisable, enabled=enabled)


def _swap(module: Any, name: str, pythons: Any, ours: Any, *, enabled: bool) -> None:
    if getattr(module, name) is (pythons if enabled else ours):
        setattr(module, name, ours if enabled else pythons)


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    _log.critical("uncaught exception", exc_info=(kind, error, trace))


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
        exc_info = (args.exc_type, args.exc_value, args.exc_traceback)
        structlog.get_logger("python").error(
            "uncaught exception", exc_info=exc_info, thread=args.thread.name if args.thread else ""
        )


def _unraisable(args: Any) -> None:
    if args.exc_value is not None:
        _log.error("exception ignored", exc_info=(args.exc_type, args.exc_value, args.exc_traceback))
