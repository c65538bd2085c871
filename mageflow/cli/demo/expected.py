"""One expectation: what must hold, whether it does, and what was found."""

from dataclasses import dataclass

__all__ = ["Expectation"]


@dataclass(frozen=True, slots=True)
class Expectation:
    """One thing that must hold, and what was found instead."""

    claim: str
    holds: bool
    found: str
