"""One definition of a member as it is stored: a short head that the scripts read, and a JSON document they do not."""

from typing import Final, Literal

from mageflow._frozen import frozen

__all__ = ["StoredDefinition"]

DefinitionKind = Literal["task", "flow", "chain", "swarm"]

_LETTERS: Final[dict[DefinitionKind, str]] = {"task": "T", "flow": "F", "chain": "C", "swarm": "S"}
_KINDS: Final[dict[str, DefinitionKind]] = {letter: kind for kind, letter in _LETTERS.items()}


@frozen
class StoredDefinition:
    """``<kind>:<success callbacks>:<error callbacks>|<document>``, the kind as one letter.

    Attributes:
        kind: ``task`` (``T``), ``flow`` (``F``: a nested flow as a member), or for a flow's own definition ``chain``
            (``C``) or ``swarm`` (``S``).
        success_callbacks: How many success callbacks it has.
        error_callbacks: How many error callbacks it has.
        document_json: The document, see `mageflow.signatures.codec`.
    """

    kind: DefinitionKind
    success_callbacks: int
    error_callbacks: int
    document_json: str

    @classmethod
    def parse(cls, text: str) -> "StoredDefinition":
        """Read a stored definition; its document is not validated.

        Raises:
            ValueError: The head is damaged.
        """
        head, bar, document = text.partition("|")
        letter, successes, errors = head.split(":")
        if not bar or letter not in _KINDS:
            raise ValueError(f"{head!r} is no head of a definition")
        return cls(_KINDS[letter], int(successes), int(errors), document)

    def __str__(self) -> str:
        return f"{_LETTERS[self.kind]}:{self.success_callbacks}:{self.error_callbacks}|{self.document_json}"
