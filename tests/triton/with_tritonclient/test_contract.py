"""Our contract, held against Triton's own."""

import os
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from tritonclient.grpc import service_pb2

SERVICE = "inference.GRPCInferenceService"
# All that a client can send must be known; of what the server sends, it may know less.
NOT_SENT = {"ModelStatistics": {"memory_usage", "response_stats"}}


@pytest.fixture(scope="module")
def ours() -> DescriptorPool:
    pool = DescriptorPool()
    pool.AddSerializedFile(Path(os.environ["CONTRACT"]).read_bytes())
    return pool


@pytest.fixture(scope="module")
def theirs() -> DescriptorPool:
    return service_pb2.DESCRIPTOR.pool


def test_the_rpcs_are_tritons(ours: DescriptorPool, theirs: DescriptorPool) -> None:
    given = theirs.FindServiceByName(SERVICE).methods
    assert set(map(_rpc, ours.FindServiceByName(SERVICE).methods)) == set(map(_rpc, given))


def test_every_message_and_enum_is_tritons(ours: DescriptorPool, theirs: DescriptorPool) -> None:
    messages = _reached(ours, "input_type") | _reached(ours, "output_type")
    assert len(messages) > 40
    for name in messages:
        given = theirs.FindMessageTypeByName(name).fields_by_name
        for field in ours.FindMessageTypeByName(name).fields:
            assert _field(field) == _field(given[field.name])


def test_nothing_that_a_client_sends_is_left_out(
    ours: DescriptorPool, theirs: DescriptorPool
) -> None:
    for name in _reached(ours, "input_type"):
        known = ours.FindMessageTypeByName(name).fields_by_name.keys()
        assert set(theirs.FindMessageTypeByName(name).fields_by_name) == set(known)


def test_of_an_answer_only_the_configuration_and_statistics_leave_something_out(
    ours: DescriptorPool, theirs: DescriptorPool
) -> None:
    for name in _reached(ours, "output_type"):
        message = theirs.FindMessageTypeByName(name)
        left_out = set(message.fields_by_name) - set(
            ours.FindMessageTypeByName(name).fields_by_name
        )
        if message.file.name != "model_config.proto":
            assert left_out == NOT_SENT.get(message.name, set())


def _reached(pool: DescriptorPool, end: str) -> set[str]:
    """Return the names of all messages at one end of the RPCs, with those inside them."""
    names: set[str] = set()

    def reach(message: Descriptor) -> None:
        if message.full_name not in names:
            names.add(message.full_name)
            for field in message.fields:
                if field.message_type:
                    reach(field.message_type)

    for method in pool.FindServiceByName(SERVICE).methods:
        reach(getattr(method, end))
    return names


def _rpc(method: MethodDescriptor) -> tuple[object, ...]:
    return (
        method.name,
        method.input_type.full_name,
        method.output_type.full_name,
        method.client_streaming,
        method.server_streaming,
    )


def _field(field: FieldDescriptor) -> tuple[object, ...]:
    return (
        field.full_name,
        field.number,
        field.type,
        field.is_repeated,
        field.is_packed,
        field.message_type and field.message_type.full_name,
        field.enum_type and _enum(field.enum_type),
        field.containing_oneof and field.containing_oneof.name,
    )


def _enum(enum: EnumDescriptor) -> tuple[object, ...]:
    return (enum.full_name, *((value.name, value.number) for value in enum.values))
