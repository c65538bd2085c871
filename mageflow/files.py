"""Writes a file in one step. This module imports nothing of mageflow."""

import os
import secrets
from pathlib import Path

__all__ = ["PRIVATE", "PUBLIC", "write_in_one_step"]

PRIVATE = 0o600
"""Only this user may read the file: for tokens."""

PUBLIC = 0o666
"""Every user that the umask allows may read the file."""


def write_in_one_step(path: Path, text: str, *, mode: int) -> None:
    """Write a file so that a reader sees the whole text or nothing of it.

    The text goes to a new file beside it, which then takes its place. The new file has its permissions from the first
    byte and a name that cannot be guessed. No link is followed: a link at ``path`` is replaced, not written through.

    Args:
        path: The file. Its directory must exist.
        text: The text, written as UTF-8.
        mode: Permissions of the file, `PRIVATE` or `PUBLIC`, less the umask of the process.

    Raises:
        OSError: The file cannot be written.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
