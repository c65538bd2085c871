"""Keeps warnings and errors of mageflow readable while a worker runs.

Two set-ups lose every event without a word. ``logging.config.dictConfig`` disables the loggers that exist, unless it is
called with ``disable_existing_loggers: False``. And where the program has set up no handler, Python prints warnings and
errors by itself, until the Hatchet SDK adds a handler for its log forwarder: from then on Python prints nothing.
"""

import logging
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Final

from mageflow.telemetry.names import events

__all__ = ["delivered"]

_log = logging.getLogger(f"{events.LOGGER}.logs")

_DISABLED: Final = (
    "the logger %r is disabled, so no event of mageflow appears: call logging.config.dictConfig with "
    "'disable_existing_loggers': False, or before mageflow is imported"
)


class _LastResort(logging.StreamHandler):  # type: ignore[type-arg] # generic in the stubs only
    """Prints to standard error what no handler of the program gets, as Python's own handler of last resort."""

    def emit(self, record: logging.LogRecord) -> None:
        if not any(_is_of_program(each) for each in _handlers(logging.getLogger(record.name))):
            super().emit(record)


@contextmanager
def delivered() -> Generator[None]:
    """For the length of the block: print warnings and errors that no handler gets; say once if the logger is disabled.

    Does nothing visible for a program that has set up logging.
    """
    logger = logging.getLogger(events.LOGGER)
    if logger.disabled:
        # A logger that dictConfig did not see is not disabled itself.
        _log.disabled = False
        _log.warning(_DISABLED, logger.name)
    handler = _LastResort()
    handler.setLevel(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _handlers(logger: logging.Logger | None) -> Iterator[logging.Handler]:
    """The handlers that get a record of a logger, as `logging.Logger.callHandlers` finds them."""
    while logger is not None:
        yield from logger.handlers
        logger = logger.parent if logger.propagate else None


def _is_of_program(handler: logging.Handler) -> bool:
    # Hatchet's log forwarder shows lines beside a run, and only while a run is executing.
    return not isinstance(handler, _LastResort) and not type(handler).__module__.startswith("hatchet_sdk.")
