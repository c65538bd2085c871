"""The record scripts, declared: name, keys and arguments of each. The files are checked against this.

Every record script takes the same nine keys (`RecordKeys.all`) and the configuration as its first argument.
"""

from typing import Final

from mageflow.signatures import FORMAT_VERSION, lua_table
from mageflow.store.redis.scripts import Script

__all__ = [
    "ACK",
    "ADMIT",
    "ALIVE",
    "CENSUS",
    "COPIED",
    "CREATE",
    "DAMAGED",
    "DESCRIBE",
    "DUE",
    "FAILURES",
    "INSPECT",
    "LEAD",
    "LIFECYCLE",
    "LOAD",
    "PUT_ASIDE",
    "REBIND",
    "RECORD_SCRIPTS",
    "REMOVE",
    "SCHEDULE",
    "SEARCH",
    "SETTLE",
    "START",
    "SWARM",
]

_KEYS: Final = ("record", "definitions", "members", "results", "live", "outbox", "held", "due", "stats")


def _record_script(name: str, *args: str, more_keys: bool = False) -> Script:
    keys = (*_KEYS, "...") if more_keys else _KEYS
    return Script(name, keys, ("config", *args), prelude=f"local FORMAT = '{FORMAT_VERSION}'\n{lua_table()}")


CREATE: Final = _record_script("create", "kind", "header", "by", "copies", "...", more_keys=True)
COPIED: Final = Script("copied", ("...",), ("format", "record", "first", "copies"))
LOAD: Final = _record_script("load", "path", "result")
ADMIT: Final = _record_script(
    "admit",
    "path",
    "epoch",
    "run",
    "task_run",
    "worker",
    "attempt",
    "input",
    "trace",
    "replay",
    "options",
    "tasks",
    "workflow",
    "view",
)
SETTLE: Final = _record_script(
    "settle", "path", "run", "attempt", "outcome", "retry", "result", "error", "input", "trace", "stages", "..."
)
START: Final = _record_script(
    "start", "message", "message_set", "parent_value", "trace", "parent", "by", "options", "scheduled", "handed_ms"
)
SCHEDULE: Final = _record_script("schedule", "at_ms", "starts", "message", "message_set", "options", "why")
LIFECYCLE: Final = _record_script("lifecycle", "path", "action", "by", "why", "error", "scope")
REBIND: Final = _record_script("rebind", "path", "before", "after")
REMOVE: Final = _record_script("remove")
SWARM: Final = _record_script("swarm", "close", "token", "copies", "...", more_keys=True)
ACK: Final = _record_script("ack", "...")
ALIVE: Final = _record_script("alive", "...")
DESCRIBE: Final = _record_script("describe", "path", "first", "limit")
FAILURES: Final = _record_script("failures", "first", "limit")
INSPECT: Final = _record_script("inspect", "lease_ms", "limit")
DUE: Final = Script("due", ("...",), ("limit", "lease_ms"))
LEAD: Final = Script("lead", ("lease",), ("owner", "ttl_ms"))
PUT_ASIDE: Final = Script("put_aside", ("due",), ("record", "kind", "reason"))
DAMAGED: Final = Script("damaged", ("...",), ("clear",))
CENSUS: Final = Script("census", ("...",), ("drop", "..."))
SEARCH: Final = Script("search", ("...",), ("shard", "pair", "score", "offset", "limit", "name", "since", "..."))

RECORD_SCRIPTS: Final = (
    CREATE, LOAD, ADMIT, SETTLE, START, LIFECYCLE, REMOVE, SWARM, DESCRIBE, ACK, ALIVE, INSPECT, DUE, LEAD, CENSUS,
    PUT_ASIDE, DAMAGED, SEARCH, REBIND, FAILURES, COPIED, SCHEDULE,
)  # fmt: skip
