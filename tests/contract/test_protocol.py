"""The engine's own copy of Hatchet's protocol has everything that the installed SDK knows, with the same numbers."""

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorSet

from mageflow.engine.contracts import read_protocol
from tests.contract.write_protocol import protocol_of_sdk


def _messages(prefix: str, messages: list[DescriptorProto]) -> set[tuple[str, int, str]]:
    fields = {(f"{prefix}.{each.name}.{field.name}", field.number, "") for each in messages for field in each.field}
    for each in messages:
        fields |= _messages(f"{prefix}.{each.name}", list(each.nested_type))
    return fields


def _all(files: FileDescriptorSet) -> set[tuple[str, int, str]]:
    found: set[tuple[str, int, str]] = set()
    for file in files.file:
        found |= _messages(file.package, list(file.message_type))
        found |= {
            (f"{file.package}.{each.name}", value.number, value.name) for each in file.enum_type for value in each.value
        }
        found |= {
            (f"{file.package}.{each.name}.{method.name}", 0, method.input_type)
            for each in file.service
            for method in each.method
        }
    return found


def test_the_engine_knows_the_protocol_of_the_installed_sdk() -> None:
    """A newer SDK fails this: run ``python -m tests.contract.write_protocol`` and see what the engine must answer."""
    engine = _all(read_protocol())
    assert len(engine) > 500
    assert _all(protocol_of_sdk()) <= engine
