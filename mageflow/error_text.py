"""The text of any exception, in a form that can be sent and stored.

This module imports nothing of mageflow.
"""

from typing import Final

__all__ = ["STORED_CHARACTERS", "clipped", "place_of", "shown", "text_of"]

STORED_CHARACTERS: Final = 32_768
"""Limit of an error's text: it is stored with the signature, and every error callback gets it."""


def text_of(error: BaseException, limit: int = 8192) -> str:
    """The text of an exception, safe to send and store. Never raises.

    Exceptions of users contain whole responses, bytes that are no text, or a ``__str__`` that fails.

    Args:
        error: Any exception.
        limit: The longest text in characters; of a longer one the middle is left out.

    Returns:
        Valid UTF-8, a little over ``limit`` characters at most.
    """
    try:
        text = str(error)
    except Exception as failure:  # noqa: BLE001 - the reported error matters more than this one
        return f"<no text: str() raised {type(failure).__name__}>"
    return clipped(text, limit)


def place_of(error: BaseException) -> str:
    """Where an exception was raised, as ``module:line``; empty for one that was never raised."""
    trace = error.__traceback__
    if trace is None:
        return ""
    while trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_globals.get('__name__', '')}:{trace.tb_lineno}"


def shown(value: object, limit: int = 200) -> str:
    """Any value for the text of an error. Never raises.

    A value may be nested too deep for ``repr``, an integer may have more digits than Python writes.

    Args:
        value: Any value.
        limit: The longest text in characters; of a longer one the middle is left out.
    """
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - the error about the value matters more
        return f"<{type(value).__qualname__}>"
    return text if len(text) <= limit else f"{text[: limit // 2]} ... {text[-(limit // 2) :]}"


def clipped(text: str, limit: int) -> str:
    """A text that can be sent and stored: the middle of a very long one left out, no lone surrogates and no NUL.

    Hatchet's database stores no NUL and refuses the whole run. Both become escapes, such as a backslash and ``x00``.
    """
    if len(text) > limit:
        text = f"{text[: limit // 2]}\n... {len(text) - limit} characters left out ...\n{text[-(limit // 2) :]}"
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()
