"""The objective of the error budget alerts, a number in the rules: the share of attempts that shall succeed."""

import re

_RULE = re.compile(r'(- record: mageflow:task_objective:ratio\n\s+expr: "vector\()([0-9.]+)(\)")')


def objective_of(rules: str) -> str | None:
    """The objective in the text of a rule file, from 0 to 1, as it is written there; None if the file has none."""
    found = _RULE.search(rules)
    return found[2] if found else None


def with_objective(rules: str, ratio: str) -> str:
    """The text of a rule file with another objective. A file without one stays as it is."""
    return _RULE.sub(rf"\g<1>{ratio}\g<3>", rules)


def ratio_of(percent: float) -> str:
    """A percentage as a ratio in decimal notation, for example ``0.995`` for 99.5."""
    return f"{percent / 100:.6f}".rstrip("0")
