"""The lifecycle table."""

import typing

import pytest

from mageflow.errors import IllegalTransitionError
from mageflow.signatures import ENDED, TRANSITIONS, Status, Transition, after, lua_table

ACTIONS: tuple[Transition, ...] = ("suspend", "resume", "interrupt")


def test_every_status_has_a_row_of_known_transitions() -> None:
    """Every status has rules, and no rule has a name of its own."""
    assert set(TRANSITIONS) == set(Status)
    assert {name for row in TRANSITIONS.values() for name in row} == set(typing.get_args(Transition))


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("status", list(Status))
def test_an_action_repeated_changes_nothing(status: Status, action: Transition) -> None:
    """The second time leads to where the first time led; an action that is illegal the first time is in no row."""
    if action not in TRANSITIONS[status]:
        assert status in ENDED
        return
    first = after(status, action)
    assert after(first, action) == first


@pytest.mark.parametrize("status", sorted(ENDED))
def test_an_ended_signature_cannot_be_suspended_or_resumed(status: Status) -> None:
    """No lifecycle action brings it back; the error says which status it has."""
    for action in ("suspend", "resume"):
        with pytest.raises(IllegalTransitionError, match=f"cannot {action} 'k': it is {status}"):
            after(status, action, key="k")


def test_an_interrupted_signature_stays_interrupted() -> None:
    """No late result and no new run brings it back."""
    assert set(TRANSITIONS[Status.INTERRUPTED].values()) == {Status.INTERRUPTED}


def test_suspension_survives_the_end_of_a_running_attempt() -> None:
    """The end of a run is recorded while suspended, and nothing follows from it yet."""
    assert all(after(Status.SUSPENDED, name) is Status.SUSPENDED for name in ("succeed", "fail", "cancel", "suspend"))


def test_the_scripts_get_the_same_table() -> None:
    """Every cell appears in the Lua text."""
    text = lua_table()
    cells = [f"{name}='{target}'" for row in TRANSITIONS.values() for name, target in row.items()]
    assert all(cell in text for cell in cells)
    assert text.count("=") == 2 + len(TRANSITIONS) + len(cells) + len(ENDED)
