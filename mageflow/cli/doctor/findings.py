"""What an examination finds: one statement, and the mend where there is something to mend."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding", "Level", "failure", "fine", "skipped", "warning"]

Level = Literal["ok", "warning", "failure", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One result.

    Attributes:
        check: What was examined, one word of the list in ``--help``.
        level: ``failure`` keeps tasks from running, ``warning`` will hurt sooner or later, ``skipped`` was not
            examined.
        statement: What was found, one sentence.
        mend: What to do. Empty for ``ok``.
    """

    check: str
    level: Level
    statement: str
    mend: str = ""


def fine(check: str, statement: str) -> Finding:
    """Nothing to mend."""
    return Finding(check, "ok", statement)


def warning(check: str, statement: str, mend: str) -> Finding:
    """Tasks run, and something will hurt."""
    return Finding(check, "warning", statement, mend)


def failure(check: str, statement: str, mend: str) -> Finding:
    """Tasks do not run, or not all of them."""
    return Finding(check, "failure", statement, mend)


def skipped(check: str, statement: str, mend: str = "") -> Finding:
    """Not examined. The mend says how to have it examined."""
    return Finding(check, "skipped", statement, mend)
