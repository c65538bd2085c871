"""Signatures that are copied into a record, and where a signature was copied to."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final, Self

from mageflow._frozen import frozen

__all__ = ["SignatureCopies", "StoredCopies", "copies_json"]

_MAX_COPIES: Final = 32
"""A signature keeps so many keys, as ``lib_copies.lua`` does."""


@frozen
class SignatureCopies:
    """A signature, and where it is copied to in one record.

    Attributes:
        key: Key of the signature.
        paths: Paths of the copies: the last 32.
        has_more: Whether there are more.
    """

    key: str
    paths: tuple[str, ...]
    has_more: bool = False

    @classmethod
    def gather(cls, copies: Iterable[tuple[str, str]]) -> list[Self]:
        """From pairs of a signature's key and the path of a copy."""
        found: dict[str, list[str]] = {}
        for key, path in copies:
            found.setdefault(key, []).append(path)
        return [cls(key, tuple(paths[-_MAX_COPIES:]), len(paths) > _MAX_COPIES) for key, paths in found.items()]


def copies_json(copies: Sequence[SignatureCopies]) -> str:
    """JSON text of a list: of each signature the list of paths, and whether there are more."""
    return json.dumps([[each.paths, each.has_more] for each in copies])


@frozen
class StoredCopies:
    """Where a signature was copied to.

    Attributes:
        keys: Keys of the members it became; the oldest first.
        has_more: Whether there were more.
    """

    keys: tuple[str, ...] = ()
    has_more: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the stored field.

        Raises:
            ValueError, LookupError, TypeError: It is damaged.
        """
        found: Any = json.loads(text)
        return cls(tuple(str(key) for key in found["keys"]), found["more"] is True)
