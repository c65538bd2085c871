"""The lines that the SDK writes for every run, which `configure` drops where an event of mageflow says the same.

Three at level info, two by the worker and one by its listener process. The event at the end of an attempt has what they
have, with outcome and duration. Lines of failures and cancellations stay.
"""

import logging
from collections.abc import Collection
from typing import Any, Final, Protocol
from weakref import WeakValueDictionary

__all__ = [
    "ALWAYS",
    "HATCHET_LOGGERS",
    "drop_run_lines",
    "drop_run_lines_early",
    "drops_run_lines",
    "logged_actions",
    "note_actions",
]

HATCHET_LOGGERS: Final = ("hatchet", "hatchet.embedded")
"""Loggers of the Hatchet SDK. It adds its handler when it is imported, maybe after `configure`."""

_ACTION_FIRST: Final = ("run: start step: ", "finished step run: ")
"""What lines of the worker begin with. The id of the action follows, a slash, and the id of the run of the task."""
_RUN_FIRST: Final = "rx: start step run: "
"""What a line of the listener process begins with. The two ids are the other way round."""


class AttemptLog(Protocol):
    """What logs the attempts of a client."""

    def logs_attempts(self) -> bool:
        """Whether the end of an attempt is written now."""
        ...


class _Always:
    def logs_attempts(self) -> bool:
        return True


ALWAYS: Final[AttemptLog] = _Always()
"""For a process that runs no attempts itself."""

_actions: Final[WeakValueDictionary[str, AttemptLog]] = WeakValueDictionary()
"""Where attempts are logged, by the id of their action. Weak, so that a client can go."""


def note_actions(actions: Collection[str], log: AttemptLog) -> None:
    """Note that the attempts of these actions are logged there."""
    for action in actions:
        _actions[action] = log


def logged_actions() -> Collection[str]:
    """The actions whose attempts are logged now."""
    return [action for action, log in list(_actions.items()) if log.logs_attempts()]


def drop_run_lines(handler: logging.Handler, *, enabled: bool) -> None:
    """Drop the lines at a handler of `configure`, or no longer. Handlers of the program go on getting them."""
    for each in [each for each in handler.filters if isinstance(each, _RunLines)]:
        handler.removeFilter(each)
    if enabled:
        handler.addFilter(_RunLines())


def drops_run_lines(handler: logging.Handler) -> bool:
    """Whether a handler drops the lines."""
    return any(isinstance(each, _RunLines) for each in handler.filters)


class _RunLines(logging.Filter):
    """Drops the lines. With debug of the SDK (``HATCHET_CLIENT_DEBUG``) they stay."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every other record pass."""
        text: object = record.msg
        if record.levelno != logging.INFO or record.name not in HATCHET_LOGGERS or not isinstance(text, str):
            return True
        return not _is_repeated(logging.getLogger(record.name), text)


def _is_repeated(logger: logging.Logger, text: str) -> bool:
    """Whether an event of mageflow says the same as a line of this logger at level info."""
    action = _action_of(text)
    log = _actions.get(action) if action else None
    return log is not None and log.logs_attempts() and not logger.isEnabledFor(logging.DEBUG)


def drop_run_lines_early(logger: logging.Logger, own: type[logging.Filter], *, enabled: bool) -> None:
    """Make no record of a line that every handler of a logger drops, or make it again.

    A record costs more than all that is done with it: the SDK makes three for each run.

    Args:
        logger: One of the SDK's.
        own: The class of the filters of `configure` on the logger. A line is not dropped early for any other filter.
        enabled: Whether to do so.
    """
    attributes = vars(logger)
    if isinstance(attributes.get("info"), _EarlyDrop):
        del attributes["info"]
    if enabled and "info" not in attributes:
        attributes["info"] = _EarlyDrop(logger, own)


class _EarlyDrop:
    """Takes the place of ``info`` of a logger. Everything but the lines goes on to it."""

    __slots__ = ("_logger", "_own")

    def __init__(self, logger: logging.Logger, own: type[logging.Filter]) -> None:
        self._logger = logger
        self._own = own

    def __call__(self, msg: object, *args: object, **options: Any) -> None:
        if type(msg) is str and not args and not options and self._drops(msg):
            return
        options["stacklevel"] = options.get("stacklevel", 1) + 1  # the caller of the record is not this function
        type(self._logger).info(self._logger, msg, *args, **options)

    def _drops(self, text: str) -> bool:
        return _is_repeated(self._logger, text) and not self._is_observed()

    def _is_observed(self) -> bool:
        """Whether anything beside the handlers that drop the lines may see a record of the logger."""
        # Error trackers replace the first, and programs the second, to see the records of all loggers.
        if (
            logging.Logger.callHandlers.__module__ != "logging"
            or logging.getLogRecordFactory() is not logging.LogRecord
        ):
            return True
        logger: logging.Logger | None = self._logger
        if any(type(each) is not self._own for each in logger.filters):
            return True
        has_handler = False
        while logger is not None:
            for each in logger.handlers:
                if each.level <= logging.INFO and not drops_run_lines(each):
                    return True
                has_handler = True
            logger = logger.parent if logger.propagate else None
        return not has_handler


def _action_of(text: str) -> str:
    """The id of the action in one of the lines; empty for any other text."""
    for start in _ACTION_FIRST:
        if text.startswith(start):
            return text[len(start) :].rpartition("/")[0]
    return text[len(_RUN_FIRST) :].partition("/")[2] if text.startswith(_RUN_FIRST) else ""
