"""The messages of Hatchet's protocol, whichever version of the SDK is installed.

They come from ``protocol.json``: names, numbers and types of the fields of each message, as the newest SDK has them. An
older SDK lacks messages and fields that the engine uses, and protobuf ignores what a peer does not know. They live in a
pool of their own, so they can differ from those of the SDK in the same process. ``python -m
tests.contract.write_protocol`` writes the file anew.

For a type checker the messages are those of the SDK. The engine does not use the generated servicers, which are
untyped; ``rpc/table.py`` declares the methods.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from google.protobuf import any_pb2, descriptor_pb2, json_format, struct_pb2, timestamp_pb2, wrappers_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message_factory import GetMessageClass

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp
    from hatchet_sdk.contracts import dispatcher_pb2, events_pb2, workflows_pb2
    from hatchet_sdk.contracts.v1 import dispatcher_pb2 as v1_dispatcher_pb2
    from hatchet_sdk.contracts.v1 import workflows_pb2 as v1_workflows_pb2
    from hatchet_sdk.contracts.v1.shared import condition_pb2, trigger_pb2

__all__ = [
    "PROTOCOL",
    "Timestamp",
    "condition_pb2",
    "dispatcher_pb2",
    "events_pb2",
    "read_protocol",
    "trigger_pb2",
    "v1_dispatcher_pb2",
    "v1_workflows_pb2",
    "workflows_pb2",
]

PROTOCOL = Path(__file__).with_name("protocol.json")
_GOOGLE = (any_pb2, struct_pb2, timestamp_pb2, wrappers_pb2)


def read_protocol() -> descriptor_pb2.FileDescriptorSet:
    """What ``protocol.json`` contains: protobuf's own JSON of descriptors."""
    return json_format.Parse(PROTOCOL.read_text(encoding="utf-8"), descriptor_pb2.FileDescriptorSet())


def _read() -> DescriptorPool:
    pool = DescriptorPool()
    for each in _GOOGLE:
        pool.AddSerializedFile(each.DESCRIPTOR.serialized_pb)
    for file in read_protocol().file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


def _module(name: str) -> Any:
    """What the generated module of a file has: its messages, its enumerations and their values."""
    file = _POOL.FindFileByName(name)
    names: dict[str, Any] = {"DESCRIPTOR": file}
    for message in file.message_types_by_name.values():
        names[message.name] = GetMessageClass(message)
    for enumeration in file.enum_types_by_name.values():
        names[enumeration.name] = EnumTypeWrapper(enumeration)
        names.update({value.name: value.number for value in enumeration.values})
    return SimpleNamespace(**names)


_POOL = _read()

if not TYPE_CHECKING:
    Timestamp = GetMessageClass(_POOL.FindMessageTypeByName("google.protobuf.Timestamp"))
    condition_pb2 = _module("v1/shared/condition.proto")
    dispatcher_pb2 = _module("dispatcher.proto")
    events_pb2 = _module("events.proto")
    trigger_pb2 = _module("v1/shared/trigger.proto")
    v1_dispatcher_pb2 = _module("v1/dispatcher.proto")
    v1_workflows_pb2 = _module("v1/workflows.proto")
    workflows_pb2 = _module("workflows.proto")
