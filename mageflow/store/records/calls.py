"""How a record script is called: the keys of one record, the TTLs of its kind, and the format that is understood."""

import json
import re
from collections.abc import Sequence
from typing import Any, Final

from mageflow.config import Settings
from mageflow.errors import SignatureInvalidError, SignatureVersionError, StoreError
from mageflow.interceptors import Interceptor
from mageflow.signatures import FORMAT_VERSION
from mageflow.store.keys import Keys, RecordKeys
from mageflow.store.redis.port import RedisPort
from mageflow.store.redis.scripts import Script
from mageflow.types import SignatureKind

__all__ = ["RecordOperations", "as_damage", "call_record_script", "script_config"]

_FOREIGN: Final = re.compile(r"\bFOREIGNFORMAT (\d+)")
_DAMAGED: Final = re.compile(
    r"^(?:ResponseError: )?(?:ERR )?(?:DAMAGED |WRONGTYPE |user_script:\d+: "
    r"|Error running script|value is not |Command arguments|Lua redis lib command)"
)
"""Errors of a script that met a value it cannot read. Refusals of the server (memory, permissions) have other codes."""

_WHERE: Final = re.compile(r",? script: \w+, on @user_script.*$", re.DOTALL)


def script_config(settings: Settings, kind: SignatureKind) -> str:
    """The configuration that every record script takes as its first argument, as JSON text."""
    active, done = settings.ttl_seconds(kind)
    # A record with a TTL below the intervals is looked at in time to keep it alive.
    grace = round(min(settings.reconcile_grace_seconds, active / 3) * 1000)
    check = round(min(settings.reconcile_check_seconds, active / 3) * 1000)
    return json.dumps({"active_ttl_s": active, "done_ttl_s": done, "grace_ms": grace, "check_ms": check})


async def call_record_script(
    port: RedisPort, script: Script, keys: RecordKeys, config: str, *args: str | float, more_keys: Sequence[str] = ()
) -> Any:
    """Run a script over one record. One round trip.

    Args:
        port: Connects to Redis.
        script: One of `mageflow.store.records.declarations`.
        keys: The record.
        config: See `script_config`; ``{}`` for a script that changes nothing.
        args: The script's other arguments.
        more_keys: Keys of other records, for a script that takes them.

    Raises:
        SignatureVersionError: Another release has stored the record; nothing was changed.
        SignatureInvalidError: Something stored for the record cannot be read.
        StoreError: As `RedisPort.call`.
    """
    try:
        return await port.call(script, [*keys.all(), *more_keys], (config, *args))
    except StoreError as error:
        damage = as_damage(keys, error)
        if damage is None:
            raise
        raise damage from error


def as_damage(keys: RecordKeys, error: StoreError) -> SignatureInvalidError | None:
    """What an error of Redis says about a record: that it is damaged, or of another release. Else None."""
    found = _FOREIGN.search(error.reason)
    if found is not None:
        return SignatureVersionError(keys.record, int(found[1]), FORMAT_VERSION)
    if _DAMAGED.match(error.reason):
        return SignatureInvalidError(keys.record, _WHERE.sub("", error.reason))
    return None


class RecordOperations:
    """What every group of operations over records needs. `Store` describes the arguments."""

    def __init__(self, port: RedisPort, keys: Keys, settings: Settings, interceptor: Interceptor | None = None) -> None:
        self.port = port
        self.keys = keys
        self.settings = settings
        self._interceptor = interceptor or Interceptor()
        self._configs: dict[SignatureKind, str] = {
            "task": script_config(settings, "task"),
            "chain": script_config(settings, "chain"),
            "swarm": script_config(settings, "swarm"),
        }

    async def _call(self, script: Script, keys: RecordKeys, *args: str | float, more_keys: Sequence[str] = ()) -> Any:
        config = self._configs[keys.kind]
        return await call_record_script(self.port, script, keys, config, *args, more_keys=more_keys)
