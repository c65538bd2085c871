"""What an error of redis-py means: Redis is away or refuses for now, or it refuses until a person changes something.

A server that refuses for now (its memory is full, it is a replica, it loads its data) is treated like one that cannot
be reached: the call is worth repeating, and the program needs no change. A wrong password or an unknown command
does not pass by itself.
"""

from typing import Final

import redis.exceptions

from mageflow.errors import StoreError, StoreRefusedError, StoreUnavailableError
from mageflow.types import OutageReason

__all__ = ["as_store_error"]

_REFUSALS: Final[tuple[tuple[str, OutageReason], ...]] = (
    ("OOM ", "full"),
    ("NOPERM ", "forbidden"),
    ("NOREPLICAS ", "no_replicas"),
    ("MISCONF ", "disk"),
    ("BUSY ", "busy"),
    ("READONLY ", "read_only"),
    ("UNBLOCKED ", "read_only"),
    ("LOADING ", "loading"),
    ("CLUSTERDOWN ", "cluster_down"),
    ("MASTERDOWN ", "master_down"),
    ("TRYAGAIN ", "try_again"),
)
"""First words of the answers of Redis 7 and Valkey. redis-py removes the words for which it has a class."""

_CLASSES: Final[tuple[tuple[type[Exception], OutageReason], ...]] = (
    (redis.exceptions.OutOfMemoryError, "full"),
    (redis.exceptions.NoPermissionError, "forbidden"),
    (redis.exceptions.ReadOnlyError, "read_only"),
    (redis.exceptions.BusyLoadingError, "loading"),
    (redis.exceptions.MasterDownError, "master_down"),  # a ClusterDownError for redis-py
    (redis.exceptions.ClusterDownError, "cluster_down"),
    (redis.exceptions.TryAgainError, "try_again"),
    (redis.exceptions.ClusterError, "try_again"),  # "TTL exhausted.": 16 answers were TRYAGAIN, ASK or MOVED
    (redis.exceptions.RedisClusterException, "cluster_down"),  # no node answers, or a slot has none
)

_CROWDED: Final = ("Too many connections", "connections became free in time", "max number of clients reached")
"""What redis-py's pools, this package and the server say."""

_IN_SCRIPT: Final = "ACL failure in script"
"""What Redis 7 says, with the word ERR, when an ACL forbids a command inside a script."""

_MOVING: Final = "ttempted to access a non local key in a cluster node"
"""What a Cluster says where a script meets a key that is not among its KEYS, while the slot moves."""

_UNREACHABLE: Final = (
    redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError,
    ConnectionError,
    TimeoutError,
    OSError,
)
_FINAL: Final = (
    redis.exceptions.AuthenticationError,  # a ConnectionError for redis-py
    redis.exceptions.AuthenticationWrongNumberOfArgsError,
    redis.exceptions.AuthorizationError,
    redis.exceptions.MovedError,
    redis.exceptions.ClusterCrossSlotError,
)
_FINAL_WORDS: Final = ("unknown command", "unknown subcommand", "NOAUTH", "WRONGPASS", "NOPROTO")


def as_store_error(operation: str, error: Exception) -> StoreError:
    """The error of mageflow for an error of redis-py or of the network.

    Args:
        operation: The name of the script or of the command.
        error: What redis-py raised.

    Returns:
        `StoreUnavailableError` if a repetition may succeed without any change to the program, the password or the
        version of the server; `StoreRefusedError` if it cannot; `StoreError` for everything else, such as a key of
        another type.
    """
    text = str(error)
    reason = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if isinstance(error, _FINAL) or text.startswith(_FINAL_WORDS):
        return StoreRefusedError(operation, reason)
    outage = _outage_of(error, text)
    return StoreError(operation, reason) if outage is None else StoreUnavailableError(operation, reason, outage)


def _outage_of(error: Exception, text: str) -> OutageReason | None:
    for words, reason in _REFUSALS:
        if text.startswith(words):
            return reason
    for kind, reason in _CLASSES:
        if isinstance(error, kind):
            return reason
    if _IN_SCRIPT in text:
        return "forbidden"
    if _MOVING in text:
        return "try_again"
    if any(each in text for each in _CROWDED):
        return "connections"
    return "unreachable" if isinstance(error, _UNREACHABLE) else None
