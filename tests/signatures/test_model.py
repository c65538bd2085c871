"""Signatures as values, and their stored form."""

import pytest
from pydantic import ValidationError

from mageflow.errors import ConfigurationError, SignatureInvalidError
from mageflow.signatures import (
    FlowDefinition,
    FlowMember,
    RunIdentity,
    Status,
    SwarmConfig,
    TaskDefinition,
    TaskSignature,
    decode_definition,
    decode_member,
    encode,
)

RUN = RunIdentity(workflow_run_id="run", task_run_id="step", worker_id="worker", attempt_number=2)


def test_a_plain_run_has_a_signature_made_from_itself() -> None:
    """Not stored, no callbacks, the run's ids as identifiers."""
    signature = TaskSignature.from_run("resize", RUN)
    assert signature.task_name == "resize"
    assert signature.task_identifiers == {
        "workflow_run_id": "run", "task_run_id": "step", "worker_id": "worker", "attempt_number": 2,
    }  # fmt: skip
    assert (signature.status, signature.attempts, signature.is_stored) == (Status.ACTIVE, 2, False)
    assert signature.success_callbacks == signature.error_callbacks == ()


def test_a_signature_is_a_value() -> None:
    """An assignment cannot change what is stored."""
    signature = TaskSignature.from_run("resize", RUN)
    with pytest.raises(ValidationError, match="frozen"):
        signature.task_name = "other"


async def test_a_value_without_a_client_cannot_act() -> None:
    """Running or suspending it is a clear error, not an AttributeError."""
    signature = TaskSignature.from_run("resize", RUN)
    with pytest.raises(ConfigurationError, match=r"aio_run needs a client.*client\.sign"):
        await signature.aio_run()
    with pytest.raises(ConfigurationError, match="suspend needs a client"):
        await signature.suspend()


@pytest.mark.parametrize(
    "document",
    [
        TaskDefinition(task="resize"),
        TaskDefinition(task="a", identifiers={"n": 1}, kwargs={"deep": {"x": [1, None]}}, result_field="data"),
        FlowMember(key="mageflow:{a/1}:chain:01", message={"x": 1}),
    ],
)
def test_a_member_survives_the_codec(document: TaskDefinition | FlowMember) -> None:
    """Reading returns what was written."""
    assert decode_member("k", encode(document)) == document


def test_a_flow_survives_the_codec() -> None:
    """Reading a chain or swarm returns what was written."""
    for document in (FlowDefinition(kind="chain", name="c"),
                     FlowDefinition(kind="swarm", name="s", config=SwarmConfig(max_concurrency=2))):  # fmt: skip
        assert decode_definition("k", encode(document)) == document


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "{", '{"v":1,"kind":"task"}',
     '{"v":99,"kind":"task","task":"x"}', '{"kind":"pickle","task":"x"}',
     "gASVBQAAAAAAAACMAWGULg=="],
)  # fmt: skip
def test_a_document_that_does_not_validate_is_a_typed_error_with_its_key(text: str) -> None:
    """Tampered, truncated or newer documents are never executed, and the error names the key."""
    with pytest.raises(SignatureInvalidError, match="'the-key'"):
        decode_member("the-key", text)
    with pytest.raises(SignatureInvalidError, match="'the-key'"):
        decode_definition("the-key", text)


@pytest.mark.parametrize(("concurrency", "batch"), [(1, 1), (2, 1), (3, 2), (10, 6), (30, 20), (500, 20)])
def test_a_swarm_refills_in_bulk(concurrency: int, batch: int) -> None:
    """Twenty places at once, or two thirds of a small swarm."""
    assert SwarmConfig(max_concurrency=concurrency).refill_batch == batch
    assert SwarmConfig(max_concurrency=concurrency, refill_linger_ms=0).refill_batch == 1


def test_limits_of_a_swarm_have_a_limit():
    """A number of thousands of digits passed every check and could not be stored."""
    with pytest.raises(ValueError, match="less than or equal to 1000000000"):
        SwarmConfig(max_concurrency=int("9" * 4000))
    assert SwarmConfig(max_task_allowed=1_000_000_000).max_task_allowed == 1_000_000_000
