"""Writes ``mageflow/engine/protocol.binpb`` from the installed SDK, which must be the newest.

Run it with ``python -m tests.contract.write_protocol`` when a new SDK appears. ``test_protocol.py`` fails when the file
lacks something that the installed SDK knows.
"""

from collections.abc import Iterator

from google.protobuf import descriptor_pb2
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
            files.setdefault(file.name, copy)
    return descriptor_pb2.FileDescriptorSet(file=files.values())


def _with_dependencies(file: FileDescriptor) -> Iterator[FileDescriptor]:
    for each in file.dependencies:
        yield from _with_dependencies(each)
    if not file.name.startswith("google/"):
        yield file


if __name__ == "__main__":
    PROTOCOL.write_bytes(protocol_of_sdk().SerializeToString(deterministic=True))
