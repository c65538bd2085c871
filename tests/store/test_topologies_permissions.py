"""The permissions that ``mageflow.store.keys`` documents are enough, and each of them is needed."""

import re
from importlib.resources import files

import pytest

import mageflow.store.keys
from mageflow.errors import StoreError
from mageflow.store import RedisPort
from tests.store.redis_workload import Parts
from tests.store.topologies import ServerProcess

pytestmark = pytest.mark.slow


def documented() -> list[str]:
    """The rules of the docstring, as ``ACL SETUSER`` takes them."""
    text = mageflow.store.keys.__doc__ or ""
    found = re.search(r"ACL SETUSER mageflow on (.*?)\n\n", text, re.DOTALL)
    assert found is not None
    return [each for each in found[1].replace("\\", " ").split() if not each.startswith(">")]


def commands_of_scripts() -> set[str]:
    """What the scripts call."""
    found: set[str] = set()
    for file in files("mageflow.store").joinpath("lua").iterdir():
        found.update(re.findall(r"(?:redis\.p?call|on_index)\('([A-Z]+)'", file.read_text()))
    return {each.lower() for each in found}


def test_documented_rules_name_what_scripts_call() -> None:
    """No more and no less: what a script begins to use is added to the rules, what it gives up is taken off."""
    named = {each.removeprefix("+") for each in documented() if each.startswith("+")}
    assert named == commands_of_scripts() | {"evalsha", "eval", "blmpop"}


async def test_documented_rules_are_enough_for_everything(server: ServerProcess) -> None:
    """Locks and flows under a user that may do this and nothing else."""
    server.ask("FLUSHALL")
    server.ask("ACL", "SETUSER", "mageflow", "reset", "on", ">secret", *documented())
    url = f"redis://mageflow:secret@127.0.0.1:{server.port}/0"
    parts = Parts(url)
    await parts.everything()
    with pytest.raises(StoreError, match=r"(?i)no permissions"):
        await parts.port.command("GET", "another-key")
    await parts.aclose()


async def test_error_names_the_permission_that_is_missing(server: ServerProcess) -> None:
    """The server's own words are in the error."""
    rules = [each for each in documented() if each != "+zadd"]
    server.ask("ACL", "SETUSER", "lesser", "reset", "on", ">secret", *rules)
    port = RedisPort(f"redis://lesser:secret@127.0.0.1:{server.port}/0")
    parts = Parts(f"redis://lesser:secret@127.0.0.1:{server.port}/0")
    with pytest.raises(StoreError, match=r"(?i)zadd|no permissions|can't run this command"):
        async with parts.locks.resource("orders").acquire():
            pass
    await parts.aclose()
    await port.aclose()
