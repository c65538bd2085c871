"""Keys and paths are written and read by one grammar, in Python as in Lua."""

from importlib.resources import files

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mageflow.signatures import RunIdentity
from mageflow.store import (
    DedupeKey,
    FlowPlace,
    Keys,
    MemberPath,
    RedisPort,
    flow_of_run,
    flow_run_id,
    join_member_key,
    locate,
    split_member_key,
)
from mageflow.store.paths import (
    CallbackPlace,
    FlowAction,
    OutboxField,
    ParentReport,
    RecordKey,
    RunCancellation,
    parse_outbox_field,
)
from mageflow.store.records.definitions import StoredDefinition

KEYS = Keys("mageflow", "acme")
RECORD = KEYS.new("task", "0a1b2c")

indexes = st.integers(0, 10**6)
nonces = st.text(st.sampled_from("abcXYZ019_-"), max_size=36)
callbacks = st.lists(st.builds(CallbackPlace, st.sampled_from(["success", "error"]), indexes), max_size=4).map(tuple)
paths = st.one_of(
    st.builds(MemberPath, index=indexes, callbacks=callbacks),
    st.builds(MemberPath, nonce=nonces, callbacks=callbacks),
    st.builds(MemberPath, callbacks=callbacks),
)
records = st.builds(
    lambda kind, identity: KEYS.new(kind, identity).record,
    st.sampled_from(["task", "chain", "swarm"]),
    st.text(st.sampled_from("0123456789abcdef"), min_size=1, max_size=32),
)
fields = st.one_of(
    paths,
    st.just(ParentReport()),
    st.builds(RunCancellation, st.uuids().map(str)),
    st.builds(FlowAction, st.sampled_from(["suspend", "resume", "interrupt"]), records),
)


@given(paths)
def test_a_path_is_read_as_it_was_written(path: MemberPath) -> None:
    """Steps, items, runs and their callbacks, to any depth."""
    assert MemberPath.parse(str(path)) == path


@given(paths, st.sampled_from(["success", "error"]), indexes)
def test_a_callback_leads_back_to_its_owner(path: MemberPath, kind: str, index: int) -> None:
    """The owner of a callback is what it was made from."""
    callback = path.callback(kind, index)  # type: ignore[arg-type]
    assert (callback.owner, callback.callback_kind) == (path, kind)
    assert callback.definition == path.definition.callback(kind, index)  # type: ignore[arg-type]


@given(records, paths)
def test_a_member_key_is_read_as_it_was_written(record: str, path: MemberPath) -> None:
    """The record's key and the path come back, from either side of the grammar."""
    assert split_member_key(join_member_key(record, path)) == (record, path)
    found = KEYS.parse(join_member_key(record, path))
    assert (found.record, found.member) == (record, path)


@given(fields)
def test_an_entry_of_the_outbox_is_read_as_it_was_written(field: OutboxField) -> None:
    """Members, reports, cancellations and actions do not collide."""
    assert parse_outbox_field(str(field)) == field


@given(records, paths, st.integers(0, 1000))
def test_a_dedupe_key_is_read_as_it_was_written(record: str, path: MemberPath, epoch: int) -> None:
    """A user's run and every other member, each with its dispatch number."""
    key = DedupeKey(record, path, epoch)
    assert DedupeKey.parse(str(key)) == key


@given(
    st.text(st.sampled_from("ab:-_#"), min_size=1, max_size=8),
    st.text(st.sampled_from("ab_%-:"), max_size=8),
    st.sampled_from(["task", "chain", "swarm"]),
    st.text(st.sampled_from("0123456789abcdef"), min_size=1, max_size=32),
)
def test_a_record_key_is_read_as_it_was_written(prefix: str, namespace: str, kind: str, identity: str) -> None:
    """With every prefix and namespace a client may have."""
    key = RecordKey(prefix, namespace, kind, identity)  # type: ignore[arg-type]
    assert RecordKey.parse(str(key)) == key
    assert (
        str(key)
        == Keys(prefix, "").tagged("x").replace("{/x}", f"{{{namespace}/{identity[-1]}}}") + f":{kind}:{identity}"
    )


@given(records)
def test_a_nested_flow_stands_for_a_run(record: str) -> None:
    """Its run id leads back to its key; a run of Hatchet leads to none."""
    assert flow_of_run(flow_run_id(record)) == record
    assert flow_of_run("6f9619ff-8b86-d011-b42d-00cf4fc964ff") is None


@given(st.sampled_from(["chain", "swarm"]), st.text(st.sampled_from("0123456789abcdef"), min_size=1), paths, st.text())
def test_a_place_in_a_flow_is_read_as_it_was_written(kind: str, identity: str, path: MemberPath, name: str) -> None:
    """It travels in a run's metadata, with any name; an older release wrote none."""
    place = FlowPlace(kind, identity, path, name)  # type: ignore[arg-type]
    assert FlowPlace.parse(str(place)) == place


@given(st.sampled_from(["task", "flow", "chain", "swarm"]), indexes, indexes, st.text())
def test_a_stored_definition_is_read_as_it_was_written(kind: str, successes: int, errors: int, text: str) -> None:
    """Any document, also one with the separators of the head in it."""
    stored = StoredDefinition(kind, successes, errors, text)  # type: ignore[arg-type]
    assert StoredDefinition.parse(str(stored)) == stored


@pytest.mark.parametrize("text", ["-1", "01", "1.", "1.x0", ".s", ".s-1", "@a b", "@a:b", "1@a", "^", "x", "1.s00"])
def test_what_is_no_path_is_refused(text: str) -> None:
    """Nothing is half understood."""
    with pytest.raises(ValueError, match="no path"):
        MemberPath.parse(text)


@pytest.mark.parametrize("text", ["!", "!parent:x", "!cancel", "!cancel:", "!remove:x", "!suspend", "x"])
def test_what_is_no_entry_of_an_outbox_is_refused(text: str) -> None:
    """Nothing is half understood."""
    with pytest.raises(ValueError, match="no "):
        parse_outbox_field(text)


@pytest.mark.parametrize(
    "text", ["", "order-17", "a@b/c", "a#1", "a#1/x", "a#1/-1", "a#1/", "#1/0", "a#x/0", "a@b c/0"]
)
def test_a_text_of_a_user_is_no_dedupe_key_of_ours(text: str) -> None:
    """A user's own dedupe key is not read as a dispatch of ours unless it has the shape of one."""
    with pytest.raises(ValueError, match="no "):
        DedupeKey.parse(text)


@pytest.mark.parametrize(
    ("key", "dedupe", "expected"),
    [
        (RECORD.record, f"{RECORD.record}@4f1c/2", (MemberPath(nonce="4f1c"), 2)),
        (RECORD.record, "", (MemberPath(nonce="run-1"), None)),
        (RECORD.record, "order 17/3", (MemberPath(nonce="order_17_3"), None)),
        (RECORD.record, f"{RECORD.record}0@4f1c/2", (MemberPath.user_run(f"{RECORD.record}0@4f1c/2"), None)),
        (f"{RECORD.record}#@4f1c.s0", f"{RECORD.record}#@4f1c.s0/1", (MemberPath.parse("@4f1c.s0"), 1)),
        (f"{RECORD.record}#@4f1c.s0", f"{RECORD.record}#@4f1c.s1/1", (MemberPath.parse("@4f1c.s0"), None)),
        (f"{RECORD.record}#@4f1c.s0", "order-17", (MemberPath.parse("@4f1c.s0"), None)),
    ],
)
def test_a_run_belongs_to_the_member_it_was_sent_for(
    key: str, dedupe: str, expected: tuple[MemberPath, int | None]
) -> None:
    """By its dedupe key, else by the key of its signature; a run that names neither is a member of its own."""
    assert locate(KEYS.parse(key), RunIdentity("run-1", dedupe_key=dedupe)) == expected


SCRIPT = """
local answers = {}
for _, path in ipairs(ARGV) do
  answers[#answers + 1] = {
    definition_path(path), owner_of(path) or false, is_success_callback(path) and 1 or 0,
    is_user_run_path(path) and 1 or 0,
    callback_path(path, true, 3), callback_path(path, false, 4),
    flow_of_run('flow:' .. path) or false, flow_of_run(path) or false,
    cancellation_of(path), action_on('resume', path), is_member(path) and 1 or 0, PARENT_REPORT,
  }
end
return answers
"""


async def test_lua_reads_and_writes_the_same_grammar(port: RedisPort) -> None:
    """Each function of ``lib_paths.lua`` returns what `mageflow.store.paths` does."""
    library = files("mageflow.store").joinpath("lua", "lib_paths.lua").read_text()
    found: list[MemberPath] = []

    @settings(database=None, max_examples=200)
    @given(paths)
    def collect(path: MemberPath) -> None:
        found.append(path)

    collect()
    texts = [str(path) for path in found]
    answers = await port.command("EVAL", library + SCRIPT, 0, *texts)
    for path, answer in zip(found, answers, strict=True):
        assert answer == [
            str(path.definition),
            str(path.owner) if path.owner is not None else None,
            int(path.callback_kind == "success"),
            int(path.is_user_run),
            str(path.callback("success", 3)),
            str(path.callback("error", 4)),
            str(path),
            flow_of_run(str(path)),
            str(RunCancellation(str(path))),
            str(FlowAction("resume", str(path))),
            1,
            str(ParentReport()),
        ]
