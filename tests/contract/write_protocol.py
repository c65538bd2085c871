"""Writes ``mageflow/engine/protocol.json`` from the installed SDK, which must be the newest.

Run it with ``python -m tests.contract.write_protocol`` when a new SDK appears. ``test_protocol.py`` fails when the file
lacks something that the installed SDK knows.
"""

import json
from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pb2, json_format
from google.protobuf.descriptor import FileDescriptor
from hatchet_sdk.contracts import dispatcher_pb2, events_pb2, workflows_pb2
from hatchet_sdk.contracts.v1 import dispatcher_pb2 as v1_dispatcher_pb2
from hatchet_sdk.contracts.v1 import workflows_pb2 as v1_workflows_pb2

from mageflow.engine.contracts import PROTOCOL

MODULES = (dispatcher_pb2, events_pb2, workflows_pb2, v1_dispatcher_pb2, v1_workflows_pb2)


def protocol_of_sdk() -> descriptor_pb2.FileDescriptorSet:
    """The descriptors of the installed SDK, dependencies first."""
    files: dict[str, descriptor_pb2.FileDescriptorProto] = {}
    for module in MODULES:
        for file in _with_dependencies(module.DESCRIPTOR):
            copy = descriptor_pb2.FileDescriptorProto()
            file.CopyToProto(copy)
            copy.ClearField("options")  # for code in other languages
            files.setdefault(file.name, copy)
    return descriptor_pb2.FileDescriptorSet(file=files.values())


def _with_dependencies(file: FileDescriptor) -> Iterator[FileDescriptor]:
    for each in file.dependencies:
        yield from _with_dependencies(each)
    if not file.name.startswith("google/"):
        yield file


def as_text(files: descriptor_pb2.FileDescriptorSet) -> str:
    """The descriptors as JSON, one message, enumeration or service on a line: differences can be read."""
    found: list[dict[str, Any]] = json_format.MessageToDict(files)["file"]
    return '{"file": [\n' + ",\n".join(_lines(each) for each in found) + "\n]}\n"


def _lines(file: dict[str, Any]) -> str:
    entries: list[str] = []
    for key, value in file.items():
        of_messages = isinstance(value, list) and any(isinstance(each, dict) for each in value)
        text = "[\n" + ",\n".join(json.dumps(each) for each in value) + "\n]" if of_messages else json.dumps(value)
        entries.append(f"{json.dumps(key)}: {text}")
    return "{" + ",\n".join(entries) + "}"


if __name__ == "__main__":
    PROTOCOL.write_text(as_text(protocol_of_sdk()), encoding="utf-8")
