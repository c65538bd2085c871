"""The only room that speaks Redis: keys, scripts, round trips, and what is stored under them.

It refuses to know Hatchet: what a decision leads to is returned, and a higher floor acts on it.
"""

from mageflow.store.keys import Keys, RecordKeys
from mageflow.store.locks import (
    FoundCycle,
    LockClaim,
    LockHolding,
    LockOwner,
    LockPicture,
    LockReply,
    LockStore,
    LockVerdict,
    LockWait,
    VictimPolicy,
)
from mageflow.store.redis import RedisClient, RedisPort
from mageflow.store.scripts import Script, ScriptHeader

__all__ = [
    "FoundCycle",
    "Keys",
    "LockClaim",
    "LockHolding",
    "LockOwner",
    "LockPicture",
    "LockReply",
    "LockStore",
    "LockVerdict",
    "LockWait",
    "RecordKeys",
    "RedisClient",
    "RedisPort",
    "Script",
    "ScriptHeader",
    "VictimPolicy",
]
