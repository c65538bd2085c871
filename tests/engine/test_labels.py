"""Worker labels."""

import pytest

from mageflow.engine.contracts import trigger_pb2
from mageflow.engine.labels import label_score


@pytest.mark.parametrize(
    ("comparator", "have", "want", "meets"),
    [
        (trigger_pb2.EQUAL, 8, 8, True),
        (trigger_pb2.NOT_EQUAL, "a", "b", True),
        (trigger_pb2.GREATER_THAN, 8, 8, False),
        (trigger_pb2.GREATER_THAN_OR_EQUAL, 8, 8, True),
        (trigger_pb2.LESS_THAN, 7, 8, True),
        (trigger_pb2.LESS_THAN_OR_EQUAL, 9, 8, False),
    ],
)
def test_labels_are_compared_as_asked(comparator: int, have: str | int, want: str | int, meets: bool) -> None:
    """A required wish that is not met excludes the worker. A met wish adds its weight, 100 by default."""
    value = {"int_value": want} if isinstance(want, int) else {"str_value": want}
    wish = trigger_pb2.DesiredWorkerLabels(**value, comparator=comparator, required=True)
    assert label_score({"k": wish}, {"k": have}) == (100 if meets else None)
    assert label_score({"k": wish}, {}) is None
