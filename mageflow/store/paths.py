"""The grammar of keys and paths: every text that names a record, a member, a run or an entry of the outbox.

::

    record key       <prefix>:{<namespace>/<shard>}:<kind>:<id>    kind: task, chain, swarm; shard: last digit of id
    member key       <record key>#<path>
    path             <place><callback>...
    place            (empty)          the record itself: a signature, or a flow
                     <index>          a step of a chain or an item of a swarm, from 0
                     @<nonce>         one run that a user starts from a plain signature
    callback         .s<index>        a success callback of what stands before it, from 0
                     .e<index>        an error callback of what stands before it, from 0
    definition path  a path without its @<nonce>: all runs of a signature share its definitions

    outbox field     <path>                    start this member
                     !parent                   report the end of this flow to its parent flow
                     !cancel:<run id>          cancel this run in Hatchet
                     !<action>:<record key>    suspend, resume or interrupt this nested flow
    results field    <path>                    the member's result
                     input:<path>              the input of a user's run, until the run has ended
    members field    <path>                    the member's state
                     added:<token>             index of the first item of one addition to a swarm
    held entry       start:<path>              start this member at resume
                     ended:<path>              this member ended while suspended; at resume, start what follows
                     member:<path>             this member itself is suspended; start it when it is resumed
    run id           <Hatchet's run id>
                     flow:<record key>         a nested flow stands for the run
                     undeliverable             there is no run: the member can never be sent
    dedupe key       <record key>@<nonce>/<epoch>    of a user's run
                     <record key>#<path>/<epoch>     of every other member; epoch: number of the dispatch, from 0
    flow place       <kind>:<id>:<path>              in a run's metadata: which member of which flow it is

``lua/lib_paths.lua`` holds what the scripts need of the same grammar; a test compares the two.

This module owns parsing and formatting. It refuses to know the prefix and namespace of a client, and to use Redis.
"""

import functools
import re
from dataclasses import replace
from typing import Final, Literal, get_args

from mageflow._frozen import frozen
from mageflow.signatures import LifecycleAction
from mageflow.types import SignatureKind

__all__ = [
    "UNDELIVERABLE",
    "CallbackKind",
    "CallbackPlace",
    "DedupeKey",
    "FlowAction",
    "FlowPlace",
    "MemberPath",
    "OutboxField",
    "ParentReport",
    "RecordKey",
    "RunCancellation",
    "flow_of_run",
    "flow_run_id",
    "join_member_key",
    "parse_outbox_field",
    "split_member_key",
]

CallbackKind = Literal["success", "error"]

UNDELIVERABLE: Final = "undeliverable"
"""The run id a member is settled under when it can never be sent to Hatchet."""

_MARKS: Final[dict[str, CallbackKind]] = {"s": "success", "e": "error"}
_LETTERS: Final[dict[CallbackKind, str]] = {kind: letter for letter, kind in _MARKS.items()}
_ACTIONS: Final[dict[str, LifecycleAction]] = {"suspend": "suspend", "resume": "resume", "interrupt": "interrupt"}
_FLOW_KINDS: Final[dict[str, Literal["chain", "swarm"]]] = {"chain": "chain", "swarm": "swarm"}
_KINDS: Final[dict[str, SignatureKind]] = {kind: kind for kind in get_args(SignatureKind)}
_RECORD: Final = re.compile(
    r"(?P<prefix>[^{}\s]+):\{(?P<namespace>[^{}/]*)/(?P<shard>[0-9a-f])\}:(?P<kind>[a-z]+):(?P<id>[^{}:#\s]*[0-9a-f])"
)
_INDEX: Final = "0|[1-9][0-9]*"
_PATH: Final = re.compile(rf"(?:(?P<index>{_INDEX})|@(?P<nonce>[\w-]*))?(?P<callbacks>(?:\.[se](?:{_INDEX}))*)")
_CALLBACK: Final = re.compile(r"\.([se])([0-9]+)")
_NOT_IN_NONCE: Final = re.compile(r"[^\w-]")
_EPOCH: Final = re.compile(r"[0-9]+", re.ASCII)
_FLOW_RUN: Final = "flow:"


@frozen
class RecordKey:
    """The key of a record, which is the public key of a signature, a chain or a swarm.

    Attributes:
        prefix: `Settings.key_prefix` of the client that stored it.
        namespace: Its Hatchet namespace, with the characters escaped that have a meaning in keys.
        kind: ``task`` for a signature, ``chain`` or ``swarm`` for a flow.
        id: What logs and spans carry as ``signature_id`` or ``flow_id``; it ends with a hexadecimal digit.
    """

    prefix: str
    namespace: str
    kind: SignatureKind
    id: str

    @classmethod
    def parse(cls, text: str) -> "RecordKey":
        """Read the key of a record.

        Raises:
            ValueError: The text is no such key.
        """
        found = _RECORD.fullmatch(text)
        if found is None or found["kind"] not in _KINDS or found["shard"] != found["id"][-1]:
            raise ValueError(f"{text!r} is no key of a record")
        return cls(found["prefix"], found["namespace"], _KINDS[found["kind"]], found["id"])

    @property
    def shard(self) -> int:
        """The hash tag it belongs to, from 0 to 15."""
        return int(self.id[-1], 16)

    def __str__(self) -> str:
        return f"{self.prefix}:{{{self.namespace}/{self.shard:x}}}:{self.kind}:{self.id}"


@frozen
class CallbackPlace:
    """One callback among those of its owner."""

    kind: CallbackKind
    index: int
    """From 0, counted per kind."""


@frozen
class MemberPath:
    """The place of a member in its record; without any field, the record itself.

    Attributes:
        index: Number of the step or item, from 0; None for anything else.
        nonce: Names one run that a user starts from a plain signature; None for anything else.
        callbacks: From the step, item, run or record down to this callback; empty for what is no callback.

    >>> MemberPath.parse("3.e0").owner
    MemberPath(index=3, nonce=None, callbacks=())
    >>> str(MemberPath(nonce="4f1c").callback("success", 1))
    '@4f1c.s1'
    """

    index: int | None = None
    nonce: str | None = None
    callbacks: tuple[CallbackPlace, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "MemberPath":
        """Read a path.

        Raises:
            ValueError: The text is no path.
        """
        found = _PATH.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is no path of a member")
        index, nonce, callbacks = found["index"], found["nonce"], found["callbacks"]
        return cls(
            index=None if index is None else int(index),
            nonce=nonce,
            callbacks=tuple(CallbackPlace(_MARKS[mark], int(number)) for mark, number in _CALLBACK.findall(callbacks))
            if callbacks
            else (),
        )

    @classmethod
    def user_run(cls, nonce: str) -> "MemberPath":
        """The path of a user's run; characters that a nonce may not have become underscores."""
        return cls(nonce=_NOT_IN_NONCE.sub("_", nonce))

    def __str__(self) -> str:
        place = "" if self.index is None else str(self.index)
        if self.nonce is not None:
            place = f"@{self.nonce}"
        return place + "".join(f".{_LETTERS[each.kind]}{each.index}" for each in self.callbacks)

    @property
    def is_record(self) -> bool:
        """True for the record itself."""
        return self.index is None and self.nonce is None and not self.callbacks

    @property
    def is_user_run(self) -> bool:
        """True for a run that a user started from a plain signature; false for its callbacks."""
        return self.nonce is not None and not self.callbacks

    @property
    def is_step_or_item(self) -> bool:
        """True for a step of a chain or an item of a swarm; false for its callbacks."""
        return self.index is not None and not self.callbacks

    @property
    def callback_kind(self) -> CallbackKind | None:
        """Of a callback; None for what is none."""
        return self.callbacks[-1].kind if self.callbacks else None

    @property
    def owner(self) -> "MemberPath | None":
        """The member this callback belongs to; None if this is not a callback."""
        return replace(self, callbacks=self.callbacks[:-1]) if self.callbacks else None

    @property
    def definition(self) -> "MemberPath":
        """The path its definition is stored under: runs of one signature share their definitions."""
        return replace(self, nonce=None) if self.nonce is not None else self

    def callback(self, kind: CallbackKind, index: int) -> "MemberPath":
        """The path of a callback of this member."""
        return replace(self, callbacks=(*self.callbacks, CallbackPlace(kind, index)))

    def key(self, record: str) -> str:
        """The public key of this member: the record's own key for the record and for a user's run of it."""
        return record if self.is_record or self.is_user_run else join_member_key(record, self)


def join_member_key(record: str, path: MemberPath) -> str:
    """The key of any member: ``<record key>#<path>``."""
    return f"{record}#{path}"


def split_member_key(key: str) -> tuple[str, MemberPath]:
    """The record's key and the path in it; the path is the record's when the key names no member.

    Raises:
        ValueError: What follows ``#`` is no path.
    """
    record, _, path = key.partition("#")
    return record, MemberPath.parse(path)


@frozen
class ParentReport:
    """An entry of the outbox: report the end of this flow to its parent flow."""

    def __str__(self) -> str:
        return "!parent"


@frozen
class RunCancellation:
    """An entry of the outbox: cancel a run in Hatchet."""

    run_id: str

    def __str__(self) -> str:
        return f"!cancel:{self.run_id}"


@frozen
class FlowAction:
    """An entry of the outbox: apply a lifecycle action to a nested flow."""

    action: LifecycleAction
    flow_key: str

    def __str__(self) -> str:
        return f"!{self.action}:{self.flow_key}"


OutboxField = MemberPath | ParentReport | RunCancellation | FlowAction


def parse_outbox_field(text: str) -> OutboxField:
    """Read the name of an entry of the outbox.

    Raises:
        ValueError: The text names no entry.
    """
    if not text.startswith("!"):
        return MemberPath.parse(text)
    word, colon, operand = text[1:].partition(":")
    if word == "parent" and not colon:
        return ParentReport()
    if word == "cancel" and operand:
        return RunCancellation(operand)
    if word in _ACTIONS and operand:
        return FlowAction(_ACTIONS[word], operand)
    raise ValueError(f"{text!r} is no entry of an outbox")


def flow_run_id(flow_key: str) -> str:
    """The run id that stands for a nested flow."""
    return _FLOW_RUN + flow_key


def flow_of_run(run_id: str) -> str | None:
    """The key of the nested flow a run id stands for; None for a run of Hatchet."""
    return run_id.removeprefix(_FLOW_RUN) if run_id.startswith(_FLOW_RUN) else None


@frozen
class DedupeKey:
    """The deterministic key of one dispatch of one member: a run that is sent twice carries the same one.

    Attributes:
        record: Key of the record.
        path: The member.
        epoch: Number of the dispatch, from 0; a member that is sent again on purpose gets the next one.
    """

    record: str
    path: MemberPath
    epoch: int = 0

    @staticmethod
    def parse(text: str) -> "DedupeKey":
        """Read a dedupe key.

        Raises:
            ValueError: The text is no dedupe key of this grammar.
        """
        return _parse_dedupe_key(text)

    def __str__(self) -> str:
        mark = "" if self.path.is_user_run else "#"
        return f"{self.record}{mark}{self.path}/{self.epoch}"


@functools.lru_cache(maxsize=1024)
def _parse_dedupe_key(text: str) -> DedupeKey:
    """Read a dedupe key. One run parses the same key three times: to admit it, to note it, and to settle it."""
    head, _, epoch = text.rpartition("/")
    record, mark, rest = head.partition("#")
    if not mark:
        record, mark, rest = head.rpartition("@")
        rest = mark + rest
    if not record or not mark or not _EPOCH.fullmatch(epoch):
        raise ValueError(f"{text!r} is no dedupe key")
    return DedupeKey(record, MemberPath.parse(rest), int(epoch))


@frozen
class FlowPlace:
    """Which member of which flow a run is, as its metadata says."""

    kind: Literal["chain", "swarm"]
    flow_id: str
    path: MemberPath
    name: str = ""
    """Name of the flow. Empty in the metadata that an older release wrote."""

    @classmethod
    def parse(cls, text: str) -> "FlowPlace":
        """Read the place.

        Raises:
            ValueError: The text is no place of this grammar.
        """
        # No other part has a space; a name may have any character.
        place, _, name = text.partition(" ")
        kind, _, rest = place.partition(":")
        flow_id, _, path = rest.rpartition(":")
        if kind not in _FLOW_KINDS or not flow_id:
            raise ValueError(f"{text!r} is no place in a flow")
        return cls(_FLOW_KINDS[kind], flow_id, MemberPath.parse(path), name)

    def __str__(self) -> str:
        place = f"{self.kind}:{self.flow_id}:{self.path}"
        return f"{place} {self.name}" if self.name else place
