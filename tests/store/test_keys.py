"""Keys are built and read in one place."""

import pytest

from mageflow.errors import SignatureNotFoundError
from mageflow.store import Keys, MemberPath

KEYS = Keys("mageflow", "acme")


def test_everything_of_a_record_shares_a_slot() -> None:
    """One script may touch a record, its members and the index that finds it."""
    record = KEYS.new("chain", "0a1b2c")
    assert {key[key.index("{") : key.index("}") + 1] for key in record.all()} == {"{acme/c}"}


def test_a_public_key_leads_back_to_its_record() -> None:
    """A member's key names its record and its place."""
    record = KEYS.new("swarm", "0a1b2c")
    member = KEYS.parse(f"{record.record}#17")
    assert (member.record, member.kind, member.member) == (record.record, "swarm", MemberPath(17))


@pytest.mark.parametrize(
    "key",
    ["", "nonsense", "mageflow:{acme/c}:lock:0a1b2c", "mageflow:{acme/d}:chain:0a1b2c", "other:{acme/c}:chain:0a1b2c",
     "mageflow:{other/c}:chain:0a1b2c", "mageflow:{acme/c}:chain:", "mageflow:{acme/c}:chain:xyz",
     "mageflow:{acme/c}:chain:0a1b2c#-1", "mageflow:{acme/c}:chain:0a1b2c#1.x0"],
)  # fmt: skip
def test_a_foreign_key_is_not_found(key: str) -> None:
    """Another prefix, namespace or shape cannot be ours; it is an error with the key in it, not a crash."""
    with pytest.raises(SignatureNotFoundError, match="no signature is stored"):
        KEYS.parse(key)


def test_a_namespace_cannot_break_out_of_its_tag() -> None:
    """Characters with a meaning in keys are escaped."""
    assert Keys("p", "a}b/{c:d#e").lock("x") == "p:{a%7Db%2F%7Bc%3Ad%23e/locks}:locks:v1:x"
