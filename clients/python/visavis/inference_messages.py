"""Messages of the Open Inference Protocol, in a pool of their own.

tritonclient registers messages of the same names in protobuf's common pool, which holds only one
of each. The descriptors are those of protos/inference; `make generate` writes them.
"""

from functools import cache
from importlib import resources
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE: Final = "inference.GRPCInferenceService"


@cache
def _pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    written = resources.files("visavis").joinpath("inference.binpb").read_bytes()
    for file in descriptor_pb2.FileDescriptorSet.FromString(written).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


@cache
def message(name: str) -> Any:
    """Return the class of a message, such as ModelInferRequest."""
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"inference.{name}"))
