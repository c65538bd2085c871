"""The only room that speaks Redis: keys, scripts, round trips, and what is stored under them.

It refuses to know Hatchet: what a decision leads to is returned, and a higher floor acts on it.
"""

from mageflow.store.keys import SHARDS, Keys, RecordKeys
from mageflow.store.locks.records import (
    FoundCycle,
    LockClaim,
    LockHolding,
    LockOwner,
    LockReply,
    LockSnapshot,
    LockVerdict,
    LockWait,
    VictimPolicy,
)
from mageflow.store.locks.store import LockStore
from mageflow.store.records.decisions import (
    Admission,
    ClosedFlow,
    Decision,
    OutboxEntry,
    ResentRun,
    SilentRun,
    dedupe_key,
    locate,
)
from mageflow.store.records.description import Description, MemberDescription, describe_record, find_records
from mageflow.store.records.store import AnySignature, Census, Store
from mageflow.store.redis.port import RedisClient, RedisPort
from mageflow.store.redis.scripts import Script, ScriptHeader
from mageflow.store.redis.server import find_unsuitable, warn_unsuitable

__all__ = [
    "SHARDS",
    "Admission",
    "AnySignature",
    "Census",
    "ClosedFlow",
    "Decision",
    "Description",
    "FoundCycle",
    "Keys",
    "LockClaim",
    "LockHolding",
    "LockOwner",
    "LockReply",
    "LockSnapshot",
    "LockStore",
    "LockVerdict",
    "LockWait",
    "MemberDescription",
    "OutboxEntry",
    "RecordKeys",
    "RedisClient",
    "RedisPort",
    "ResentRun",
    "Script",
    "ScriptHeader",
    "SilentRun",
    "Store",
    "VictimPolicy",
    "dedupe_key",
    "describe_record",
    "find_records",
    "find_unsuitable",
    "locate",
    "warn_unsuitable",
]
