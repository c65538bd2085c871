"""What `check_member` remembers of good definitions does not hide a damaged one."""

import pytest

from mageflow.errors import SignatureInvalidError, SignatureVersionError
from mageflow.store import Keys, MemberPath
from mageflow.store.records.views import check_member

RUN = MemberPath.user_run("a")
GOOD = '{"v":1,"kind":"task","task":"pack","kwargs":{"note":"%s"}}'
KEYS = Keys("mageflow", "test")
FIRST, SECOND = KEYS.new("task", "1"), KEYS.new("task", "2")


@pytest.mark.parametrize("length", [1, 10_000], ids=["remembered", "too long to be remembered"])
def test_a_damaged_definition_is_found_after_a_good_one_and_for_each_key(length: int) -> None:
    good = GOOD % ("x" * length)
    damaged = good.replace('"task":"pack"', '"task":7')
    for _ in range(2):
        check_member(FIRST, RUN, good)
        for keys in (FIRST, SECOND):
            with pytest.raises(SignatureInvalidError) as found:
                check_member(keys, RUN, damaged)
            assert keys.record in str(found.value)


def test_a_definition_of_another_release_keeps_its_own_error() -> None:
    for _ in range(2):
        with pytest.raises(SignatureVersionError):
            check_member(FIRST, RUN, (GOOD % "x").replace('"v":1', '"v":99'))
