"""clients/protos: parts of published protos, for the languages that don't bring them along."""

import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2

PROTOS = Path(__file__).parents[1] / "clients" / "protos"
PUBLISHED = (code_pb2, error_details_pb2, status_pb2, health_pb2)


def test_names_and_numbers_are_the_published_ones() -> None:
    buf = Path(sys.executable).with_name("buf")
    image = subprocess.run([buf, "build", PROTOS, "-o", "-"], stdout=subprocess.PIPE, check=True)
    files = [
        file
        for file in FileDescriptorSet.FromString(image.stdout).file
        if (PROTOS / file.name).exists()  # and not what they import
    ]
    assert len(files) == len(PUBLISHED)
    published = {
        declaration
        for module in PUBLISHED
        for declaration in declared(FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb))
    }
    assert {declaration for file in files for declaration in declared(file)} <= published


def declared(file: FileDescriptorProto) -> Iterator[tuple[object, ...]]:
    """Yield every RPC, enum value and field, with all that matters on the wire."""
    for service in file.service:
        for rpc in service.method:
            yield (file.package, service.name, rpc.name, rpc.input_type, rpc.output_type)
    yield from _values(file.package, file.enum_type)
    for message in file.message_type:
        yield from _fields(file.package, message)


def _values(scope: str, enums: Iterable[EnumDescriptorProto]) -> Iterator[tuple[object, ...]]:
    for enum in enums:
        for value in enum.value:
            yield (scope, enum.name, value.name, value.number)


def _fields(scope: str, message: DescriptorProto) -> Iterator[tuple[object, ...]]:
    name = f"{scope}.{message.name}"
    for field in message.field:
        yield (name, field.name, field.number, field.type, field.label, field.type_name)
    yield from _values(name, message.enum_type)
    for nested in message.nested_type:
        yield from _fields(name, nested)
