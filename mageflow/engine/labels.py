"""Compares the worker labels that a task wishes with the labels of a worker."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from mageflow.engine.contracts import trigger_pb2

_DEFAULT_WEIGHT = 100
_COMPARATORS: dict[int, Callable[[Any, Any], bool]] = {
    trigger_pb2.EQUAL: operator.eq,
    trigger_pb2.NOT_EQUAL: operator.ne,
    trigger_pb2.GREATER_THAN: operator.gt,
    trigger_pb2.GREATER_THAN_OR_EQUAL: operator.ge,
    trigger_pb2.LESS_THAN: operator.lt,
    trigger_pb2.LESS_THAN_OR_EQUAL: operator.le,
}


def label_score(wanted: Mapping[str, trigger_pb2.DesiredWorkerLabels], labels: Mapping[str, str | int]) -> int | None:
    """Return the total weight of the wishes that a worker meets, or None if it misses a required one."""
    score = 0
    for key, wish in wanted.items():
        if key in labels and _meets(labels[key], wish):
            score += wish.weight if wish.HasField("weight") else _DEFAULT_WEIGHT
        elif wish.required:
            return None
    return score


def _meets(have: str | int, wish: trigger_pb2.DesiredWorkerLabels) -> bool:
    want: str | int = wish.int_value if wish.HasField("int_value") else wish.str_value
    if type(have) is not type(want):
        have, want = str(have), str(want)
    return _COMPARATORS[wish.comparator](have, want)
