"""The fields of an input that receive results and errors."""

from typing import Annotated, Any, Optional

import pytest
from pydantic import BaseModel, Field

from mageflow.signatures import ERROR_FIELD, RESULT_FIELD, ReturnValue, TaskError, error_field, result_field


class Plain(BaseModel):
    mageflow_results: int


class Marked(BaseModel):
    data: ReturnValue[int]
    why: TaskError


class Called(BaseModel):
    data: Annotated[Any, ReturnValue()]
    why: TaskError | None = None


class Bare(BaseModel):
    data: Annotated[Any, ReturnValue]
    why: Optional[TaskError] = None  # noqa: UP045 - users write it


class Aliased(BaseModel):
    data: ReturnValue[list[int]] = Field(validation_alias="theData")
    mine: Annotated[TaskError, "documentation"]


@pytest.mark.parametrize(
    ("model", "result", "error"),
    [
        (Plain, RESULT_FIELD, ERROR_FIELD),
        (Marked, "data", "why"),
        (Called, "data", "why"),
        (Bare, "data", "why"),
        (Aliased, "theData", "mine"),
        (None, RESULT_FIELD, ERROR_FIELD),
        (dict[str, Any], RESULT_FIELD, ERROR_FIELD),
    ],
)
def test_the_marked_field_is_found(model: object, result: str, error: str) -> None:
    """Both spellings of the marker work, in unions and annotations; without one the default field is used."""
    assert (result_field(model), error_field(model)) == (result, error)


def test_a_marked_field_still_validates_as_its_type() -> None:
    """The marker changes nothing about validation."""
    assert Marked.model_validate({"data": "3", "why": {"type": "ValueError"}}).data == 3
