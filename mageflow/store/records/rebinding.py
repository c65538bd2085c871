"""Replaces the definition of something that has not begun."""

from typing import Literal, cast

from mageflow.config import Settings
from mageflow.interceptors import Interceptor, SignatureWrite
from mageflow.store.keys import RecordKeys
from mageflow.store.records.calls import call_record_script, script_config
from mageflow.store.records.declarations import REBIND
from mageflow.store.redis.port import RedisPort

__all__ = ["replace_definition"]


async def replace_definition(
    port: RedisPort, settings: Settings, interceptor: Interceptor, keys: RecordKeys, before: str, after: str
) -> tuple[Literal["done", "gone", "changed", "begun"], str]:
    """Replace a stored definition if it is still ``before`` and nothing of it has begun. One round trip, atomic.

    Returns:
        What was done, and the status that forbids it.

    Raises:
        SignatureInvalidError: Something stored for the record cannot be read.
        StoreError: As `RedisPort.call`.
    """
    with interceptor.write_signature(SignatureWrite(keys.kind, "update", keys.id, len(after))):
        config = script_config(settings, keys.kind)
        verdict, status = await call_record_script(port, REBIND, keys, config, str(keys.member), before, after)
    return cast('Literal["done", "gone", "changed", "begun"]', verdict), status
