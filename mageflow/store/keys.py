r"""Every Redis key mageflow writes, from one builder.

A key reads ``<prefix>:{<namespace>/<tag>}:<kind>:<id>[:<part>]``. The braces are Redis Cluster's hash tag: keys with
the same tag live in one slot, so one script may decide over all of them.

Records (signatures, chains, swarms) are spread over `SHARDS` tags by the last hexadecimal digit of their id. A
record, its members, its outbox **and the index that finds it again** share the tag, so no crash can leave a record
that no reconciler knows of. One tag per record would need that index in another slot, outside the script.

Locks use the single tag ``locks`` of the namespace: a cycle can run through any of its resources, and the script
that looks for one has to see them all.

``docs/storage.md`` lists every key with its fields and its TTL, ``docs/storage-locks.md`` those of locks.

The least a Redis user must be allowed, with the default prefix (a Cluster client needs what redis-py does besides:
``+cluster +command +readonly``)::

    ACL SETUSER mageflow on >password ~mageflow:* resetchannels +blmpop +del +eval +evalsha +exists +expire \
        +get +hdel +hexists +hget +hgetall +hkeys +hlen +hmget +hscan +hset +hstrlen +info +llen \
        +lpos +lpush +lrange +lrem +ltrim +pexpire +pttl +rpush +set +time +zadd +zcard +zlexcount +zrange \
        +zrangebylex +zrangebyscore +zrem +zremrangebyscore +zscore

``info`` is called once, when a worker starts, to warn of a server that would lose state; it may be left out.

This module owns the names of keys. It refuses to talk to Redis.
"""

import functools
from typing import Final

from mageflow._frozen import frozen
from mageflow.errors import SignatureNotFoundError
from mageflow.store.paths import MemberPath, RecordKey, split_member_key
from mageflow.types import SignatureKind

__all__ = ["LOCK_FORMAT_VERSION", "SHARDS", "Keys", "RecordKeys", "signature_id_of"]

SHARDS: Final = 16
"""Hash tags the records of one namespace are spread over. Fixed: every process must agree on it."""

LOCK_FORMAT_VERSION: Final = 1
"""Version of the stored format of locks (``docs/storage-locks.md``). It is part of their keys."""

_RESERVED: Final = str.maketrans({"{": "%7B", "}": "%7D", "/": "%2F", "#": "%23", ":": "%3A", " ": "%20"})


@frozen
class RecordKeys:
    """The keys of one record, and the member of it that is meant.

    Attributes:
        kind: ``task`` for a signature, ``chain`` or ``swarm`` for a flow.
        id: The part of the key that logs and spans carry as ``signature_id`` or ``flow_id``.
        shard: From 0 to `SHARDS` - 1.
        record: Key of the record, which is its public key.
        member: The member; the record itself when the key named none.
        due: The index that leads reconcilers to the record.
        stats: What the keys of the shard's counts begin with.
    """

    kind: SignatureKind
    id: str
    shard: int
    record: str
    member: MemberPath
    due: str
    stats: str

    @property
    def definitions(self) -> str:
        """Definitions of the members, by definition path."""
        return f"{self.record}:definitions"

    @property
    def members(self) -> str:
        """States of the members, by path."""
        return f"{self.record}:members"

    @property
    def results(self) -> str:
        """Results of the members, by path."""
        return f"{self.record}:results"

    @property
    def live(self) -> str:
        """Members that were sent or run, by the time of their last sign of life."""
        return f"{self.record}:live"

    @property
    def outbox(self) -> str:
        """Entries that were decided and are not known to be sent, by outbox field."""
        return f"{self.record}:outbox"

    @property
    def held(self) -> str:
        """The members that wait for resume, in order."""
        return f"{self.record}:held"

    def all(self) -> tuple[str, ...]:
        """Every key that a record script takes, in the order in which the scripts declare them."""
        return _all_keys(self.record, self.due, self.stats)


@functools.lru_cache(maxsize=1024)
def _all_keys(record: str, due: str, stats: str) -> tuple[str, ...]:
    # Each run calls two scripts of its record.
    own = ("definitions", "members", "results", "live", "outbox", "held")
    return (record, *[f"{record}:{each}" for each in own], due, stats)


class Keys:
    """Builds every key of one client.

    Args:
        prefix: `Settings.key_prefix`.
        namespace: The Hatchet namespace; two namespaces on one server never see each other's keys.
    """

    def __init__(self, prefix: str, namespace: str) -> None:
        self.prefix = prefix
        self.namespace = namespace.translate(_RESERVED)
        # One run parses the same key four times.
        self._parsed = functools.lru_cache(maxsize=1024)(self._parse)

    @classmethod
    def of(cls, key: str) -> "Keys":
        """The keys of the client that stored a record: its prefix and namespace are part of the key.

        Raises:
            SignatureNotFoundError: The key has another shape.
        """
        try:
            found = RecordKey.parse(split_member_key(key)[0])
        except ValueError:
            raise SignatureNotFoundError(key) from None
        return cls(found.prefix, found.namespace)

    def tagged(self, tag: str, *parts: str) -> str:
        """A key with the hash tag ``<namespace>/<tag>``."""
        return ":".join((self.prefix, "{" + self.namespace + "/" + tag + "}", *parts))

    def lock(self, *parts: str) -> str:
        """A key of the lock service. All of a namespace share one hash tag.

        The name holds the version of the stored format: another release's locks are never read, and end by themselves.
        """
        return self.tagged("locks", "locks", f"v{LOCK_FORMAT_VERSION}", *parts)

    def due(self, shard: int) -> str:
        """The reconciler's index of one shard."""
        return self.tagged(f"{shard:x}", "due")

    def stats(self, shard: int) -> str:
        """The prefix of the keys with the counts of one shard."""
        return self.tagged(f"{shard:x}", "stats")

    def new(self, kind: SignatureKind, identity: str, member: MemberPath | None = None) -> RecordKeys:
        """The keys of the record with this id.

        Raises:
            ValueError: The id does not end with a hexadecimal digit.
        """
        if identity[-1:] not in set("0123456789abcdef"):
            raise ValueError(f"{identity!r} is no id of a record")
        return self._keys_of(RecordKey(self.prefix, self.namespace, kind, identity), member or MemberPath())

    def parse(self, key: str) -> RecordKeys:
        """The keys behind a public key: a record, or a member of one (``<record>#<path>``).

        Raises:
            SignatureNotFoundError: The key has another shape, prefix or namespace, so nothing of this client is stored
                under it.
        """
        return self._parsed(key)

    def _parse(self, key: str) -> RecordKeys:
        try:
            text, member = split_member_key(key)
            record = RecordKey.parse(text)
        except ValueError:
            raise SignatureNotFoundError(key) from None
        if (record.prefix, record.namespace) != (self.prefix, self.namespace):
            raise SignatureNotFoundError(key)
        return self._keys_of(record, member)

    def _keys_of(self, record: RecordKey, member: MemberPath) -> RecordKeys:
        return RecordKeys(
            kind=record.kind,
            id=record.id,
            shard=record.shard,
            record=str(record),
            member=member,
            due=self.due(record.shard),
            stats=self.stats(record.shard),
        )


@functools.lru_cache(maxsize=1024)
def signature_id_of(key: str) -> str:
    """The id in the key of a record or of its member: what logs and spans call ``signature_id`` and ``flow_id``.

    Works for the keys of every client. Empty for a text that is no such key.
    """
    try:
        return RecordKey.parse(split_member_key(key)[0]).id
    except ValueError:
        return ""
