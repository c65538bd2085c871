"""The lifecycle table."""

import typing

import pytest

from mageflow.errors import IllegalTransitionError
from mageflow.signatures import ENDED, TRANSITIONS, Status, Verb, after, lua_table

VERBS: tuple[Verb, ...] = typing.get_args(Verb)


def test_every_status_has_a_row() -> None:
    """No status is without rules."""
    assert set(TRANSITIONS) == set(Status)


@pytest.mark.parametrize("verb", ["suspend", "resume", "interrupt"])
@pytest.mark.parametrize("status", list(Status))
def test_twice_is_once(status: Status, verb: Verb) -> None:
    """Obeying a verb again changes nothing and is no error."""
    if verb in TRANSITIONS[status]:
        first = after(status, verb)
        assert after(first, verb) == first


@pytest.mark.parametrize("status", sorted(ENDED))
def test_what_has_ended_cannot_be_suspended_or_resumed(status: Status) -> None:
    """An ended signature is not brought back by a lifecycle verb; the error says where it stands."""
    for verb in ("suspend", "resume"):
        with pytest.raises(IllegalTransitionError, match=f"cannot {verb} 'k': it is {status}"):
            after(status, verb, key="k")


def test_an_interrupted_signature_stays_interrupted() -> None:
    """No late result and no new run brings it back."""
    assert set(TRANSITIONS[Status.INTERRUPTED].values()) == {Status.INTERRUPTED}


def test_suspension_survives_the_end_of_a_running_attempt() -> None:
    """What a body does while suspended is recorded, and nothing follows from it yet."""
    assert all(after(Status.SUSPENDED, verb) is Status.SUSPENDED for verb in ("succeed", "fail", "cancel", "suspend"))


def test_the_scripts_get_the_same_table() -> None:
    """Every cell appears in the Lua text."""
    text = lua_table()
    cells = [f"{verb}='{target}'" for verbs in TRANSITIONS.values() for verb, target in verbs.items()]
    assert all(cell in text for cell in cells)
    assert text.count("=") == 2 + len(TRANSITIONS) + len(cells) + len(ENDED)
