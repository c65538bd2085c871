"""The lines that the SDK writes for every run, which `configure` drops where an event of mageflow says the same.

Three at level info, two by the worker and one by its listener process. The event at the end of an attempt has what they
have, with outcome and duration. Lines of failures and cancellations stay.
"""

import logging
from collections.abc import Collection
from typing import Final, Protocol
from weakref import WeakValueDictionary

__all__ = ["ALWAYS", "HATCHET_LOGGERS", "drop_run_lines", "drops_run_lines", "logged_actions", "note_actions"]

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
        log = _actions.get(_action_of(text))
        return log is None or logging.getLogger(record.name).isEnabledFor(logging.DEBUG) or not log.logs_attempts()


def _action_of(text: str) -> str:
    """The id of the action in one of the lines; empty for any other text."""
    for start in _ACTION_FIRST:
        if text.startswith(start):
            return text[len(start) :].rpartition("/")[0]
    return text[len(_RUN_FIRST) :].partition("/")[2] if text.startswith(_RUN_FIRST) else ""
