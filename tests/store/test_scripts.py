"""A script's declaration, its header and its calls agree."""

import importlib.resources

import pytest

import mageflow.store
from mageflow.errors import ConfigurationError
from mageflow.store import RedisPort, Script, ScriptHeader
from tests.store.counting import RoundTrips

GOOD = """-- probe: answer what was asked.
--
-- KEYS
--   thing    string  what is read
-- ARGS
--   word     text    what is said
--   ...      text    more words
-- RESULT   the words,
--          in order
-- TTL      none
-- ATOMIC   it is one command
return ARGV
"""


def probe(source: str = GOOD, keys: tuple[str, ...] = ("thing",), args: tuple[str, ...] = ("word", "...")) -> Script:
    """A declared script with a source of the test's own."""
    script = Script("probe", keys, args)
    script.__dict__["source"] = source
    return script


def test_a_header_is_read_whole() -> None:
    """Slots and notes come out as written, continuation lines joined."""
    header = ScriptHeader.parse("probe", GOOD)
    assert (header.summary, header.keys, header.args) == ("answer what was asked.", ("thing",), ("word", "..."))
    assert header.notes["RESULT"] == "the words, in order"


@pytest.mark.parametrize("damage", [("-- probe: ", "-- other: "), ("-- ATOMIC ", "-- AUTOMATIC ")])
def test_a_header_that_lacks_something_is_refused(damage: tuple[str, str]) -> None:
    """A file without its name or one of its notes cannot be loaded."""
    with pytest.raises(ConfigurationError, match=r"lua/probe\.lua"):
        ScriptHeader.parse("probe", GOOD.replace(*damage))


async def test_a_script_the_server_does_not_know_is_sent_once(port: RedisPort, round_trips: RoundTrips) -> None:
    """EVALSHA first; one more round trip loads the script, once per server."""
    script = probe()
    assert await port.call(script, ["mageflow:k"], ["a", 1, 2.5]) == ["a", "1", "2.5"]
    assert round_trips.total == 2
    await port.call(script, ["mageflow:k"], ["a"])
    assert round_trips.total == 3


@pytest.mark.parametrize(("keys", "args"), [([], ["a"]), (["k"], [])])
async def test_a_call_that_does_not_fit_is_refused(port: RedisPort, keys: list[str], args: list[str]) -> None:
    """Missing keys or arguments never reach the server."""
    with pytest.raises(ConfigurationError, match="probe takes keys"):
        await port.call(probe(), keys, args)


def test_every_lua_file_has_a_header() -> None:
    """Each decision documents its keys, arguments, result, TTL and why it is atomic."""
    folder = importlib.resources.files(mageflow.store).joinpath("lua")
    for file in folder.iterdir():
        name = file.name.removesuffix(".lua")
        if file.name.endswith(".lua") and not name.startswith("lib_"):
            assert ScriptHeader.parse(name, file.read_text()).summary
