"""Conversion of the Open Inference Protocol's tensors, raw or typed, to NumPy arrays and back.

Clients choose the size of tensors, so none of this may run in the event loop.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from visavis_server.api.inference import grpc_service_pb2 as pb
from visavis_server.errors import InvalidRequest
from visavis_server.transport.wire import delimited, without

Array = npt.NDArray[Any]
Response = pb.ModelInferResponse

_OUTPUTS = Response.OUTPUTS_FIELD_NUMBER
_RAW_OUTPUTS = Response.RAW_OUTPUT_CONTENTS_FIELD_NUMBER
_CONTENTS = Response.InferOutputTensor.CONTENTS_FIELD_NUMBER


@dataclass(frozen=True, slots=True)
class Request:
    """A ModelInferRequest, with its raw_input_contents as views of the received bytes.

    Protobuf would copy the contents twice while holding the GIL: once to parse them, and once for
    each access.
    """

    message: pb.ModelInferRequest
    raw: Sequence[bytes | memoryview]

    DESCRIPTOR: ClassVar[Any] = pb.ModelInferRequest.DESCRIPTOR

    @classmethod
    def FromString(cls, data: bytes) -> Self:  # noqa: N802  as protobuf's
        """Parse a request. Raises InvalidRequest or DecodeError."""
        left, raw = without(data, pb.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER)
        message = pb.ModelInferRequest.FromString(left)
        # Some clients send empty raw contents beside typed ones.
        if raw and not any(map(len, raw)) and any(map(_has_contents, message.inputs)):
            raw = []
        return cls(message, raw)


# Datatype: the NumPy type of its elements, little-endian, and the field of its typed contents.
_DATATYPES: Mapping[str, tuple[str, str]] = {
    "BOOL": ("?", "bool_contents"),
    "UINT8": ("u1", "uint_contents"),
    "UINT16": ("<u2", "uint_contents"),
    "UINT32": ("<u4", "uint_contents"),
    "UINT64": ("<u8", "uint64_contents"),
    "INT8": ("i1", "int_contents"),
    "INT16": ("<i2", "int_contents"),
    "INT32": ("<i4", "int_contents"),
    "INT64": ("<i8", "int64_contents"),
    "FP16": ("<f2", ""),  # raw only
    "FP32": ("<f4", "fp32_contents"),
    "FP64": ("<f8", "fp64_contents"),
}
BYTES = "BYTES"

# The first bytes of JPEG, PNG and WebP.
_PICTURES = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF")
# More than any model takes. A shape of 30,000 sizes of 2^62 took 8 s to multiply and print.
MAX_RANK = 8
# Of raw BYTES: a message has room for 8 million empty ones.
_MAX_ELEMENTS = 4096
# Copied at a time with the GIL held, for about a millisecond.
_NUMBERS_AT_ONCE = 1 << 16


def read_inputs(request: Request) -> dict[str, Array]:
    """Return a request's inputs by name; inputs of datatype BYTES hold bytes objects.

    Raises InvalidRequest if an input's contents don't match its shape and datatype.
    """
    raw, tensors = request.raw, request.message.inputs
    if raw and len(raw) != len(tensors):
        raise InvalidRequest(
            "raw_input_contents",
            f"the request has {len(raw)} raw contents for {len(tensors)} inputs; send one for each",
        )
    inputs: dict[str, Array] = {}
    for index, tensor in enumerate(tensors):
        field = f"inputs[{index}]"
        if tensor.name in inputs:
            raise InvalidRequest(f"{field}.name", f"the input {tensor.name[:64]!r} is repeated")
        if "shared_memory_region" in tensor.parameters:
            raise InvalidRequest(
                f"{field}.parameters",
                "shared memory is not supported; send the contents in the request",
            )
        if (rank := len(tensor.shape)) > MAX_RANK:
            raise InvalidRequest(
                f"{field}.shape", f"the shape has {rank} dimensions; the limit is {MAX_RANK}"
            )
        shape = tuple(tensor.shape)
        if any(size < 0 for size in shape):
            raise InvalidRequest(
                f"{field}.shape", f"the shape is {list(shape)}; dimensions must be at least 0"
            )
        if raw and _has_contents(tensor):
            raise InvalidRequest(
                f"{field}.contents", "the request has both raw and typed contents; send one of them"
            )
        if raw:
            array = _from_raw(tensor.datatype, raw[index], field)
        else:
            array = _from_typed(tensor.datatype, tensor.contents, field)
        if array.size != math.prod(shape):
            raise InvalidRequest(
                f"{field}.shape",
                f"the shape {list(shape)} has {math.prod(shape)} elements of {tensor.datatype}; "
                f"the contents have {array.size}",
            )
        inputs[tensor.name] = array.reshape(shape)
    return inputs


def write_response(response: Response, outputs: Mapping[str, Array], raw: bool) -> bytes:
    """Return a response in wire format, with outputs added by name.

    raw: write raw contents instead of typed ones. BYTES are arrays of objects: strings or bytes.
    Contiguous floats are copied once, directly into the result.
    """
    tensors, raw_contents = list[Any](), list[Any]()
    for name, array in outputs.items():
        tensor = Response.InferOutputTensor(
            name=name, datatype=datatype_of(array), shape=array.shape
        )
        contents = [] if raw else delimited(_CONTENTS, _typed(tensor.datatype, array))
        tensors += delimited(_OUTPUTS, [tensor.SerializeToString(), *contents])
        if raw:
            raw_contents += delimited(_RAW_OUTPUTS, [to_raw(array)])
    return b"".join([response.SerializeToString(), *tensors, *raw_contents])


def datatype_of(array: Array) -> str:
    """Return the protocol's name for an array's datatype."""
    if array.dtype == object:
        return BYTES
    return next(name for name, (kind, _) in _DATATYPES.items() if np.dtype(kind) == array.dtype)


def _has_contents(tensor: pb.ModelInferRequest.InferInputTensor) -> bool:
    return tensor.HasField("contents") and bool(tensor.contents.ListFields())


def _from_raw(datatype: str, data: bytes | memoryview, field: str) -> Array:
    if datatype == BYTES:
        return _objects(_elements(data, field))
    kind = np.dtype(kind_of(datatype, field)[0])
    if len(data) % kind.itemsize:
        raise InvalidRequest(
            f"{field}.shape", f"{len(data)} bytes are not a multiple of the size of {datatype}"
        )
    return np.frombuffer(data, kind)


def _from_typed(datatype: str, contents: pb.InferTensorContents, field: str) -> Array:
    if datatype == BYTES:
        return _objects(contents.bytes_contents)
    kind, name = kind_of(datatype, field)
    if not name:
        raise InvalidRequest(
            f"{field}.contents", f"{datatype} has no typed contents; send raw contents"
        )
    numbers = getattr(contents, name)
    array = np.empty(len(numbers), kind)
    try:
        for start in range(0, len(array), _NUMBERS_AT_ONCE):
            array[start : start + _NUMBERS_AT_ONCE] = numbers[start : start + _NUMBERS_AT_ONCE]
        return array
    except OverflowError as error:
        raise InvalidRequest(
            f"{field}.contents", f"a value is out of range for {datatype}: {error}"
        ) from None


def kind_of(datatype: str, field: str) -> tuple[str, str]:
    """Return the NumPy type of a datatype's elements, and the field of its typed contents.

    Raises InvalidRequest for the field if there is no such datatype, or if it is BYTES.
    """
    if datatype not in _DATATYPES:
        raise InvalidRequest(
            f"{field}.datatype",
            f"the datatype is {datatype[:32]!r}; choose one of {', '.join((*_DATATYPES, BYTES))}",
        )
    return _DATATYPES[datatype]


def _elements(data: bytes | memoryview, field: str) -> Iterable[bytes]:
    """Yield the elements of raw BYTES, each preceded by its length in 4 bytes."""
    if _is_bare_picture(data):
        yield bytes(data)
        return
    position = count = 0
    while position < len(data):
        count += 1
        if count > _MAX_ELEMENTS:
            raise InvalidRequest(
                f"{field}.contents", f"the input has more than {_MAX_ELEMENTS} elements; send fewer"
            )
        length = int.from_bytes(data[position : position + 4], "little")
        position += 4
        if position + length > len(data):
            raise InvalidRequest(
                f"{field}.contents",
                f"an element has a length of {length} bytes, more than the contents have left; "
                "each element of raw BYTES is preceded by its length in 4 bytes, little-endian",
            )
        yield bytes(data[position : position + length])
        position += length


def _is_bare_picture(data: bytes | memoryview) -> bool:
    """Return True if raw BYTES are one encoded picture without the length in front of it.

    The first bytes of a picture, read as a length, exceed a gigabyte: more than a message has.
    """
    head = bytes(data[:4])
    return head.startswith(_PICTURES) and int.from_bytes(head, "little") > len(data)


def to_raw(array: Array) -> Any:
    """Return an array's raw contents: bytes, or the array itself if it is contiguous."""
    if array.dtype != object:
        return np.ascontiguousarray(array)
    elements = map(_encoded, array.flat)
    return b"".join(len(e).to_bytes(4, "little") + e for e in elements)


def _typed(datatype: str, array: Array) -> list[Any]:
    """Return the InferTensorContents of an array in wire format, as pieces."""
    _, name = _DATATYPES.get(datatype, ("", "bytes_contents"))
    if datatype in ("FP32", "FP64"):
        number = pb.InferTensorContents.DESCRIPTOR.fields_by_name[name].number
        return delimited(number, [np.ascontiguousarray(array)])
    values = map(_encoded, array.flat) if datatype == BYTES else array.ravel().tolist()
    contents = pb.InferTensorContents()
    getattr(contents, name).extend(values)
    return [contents.SerializeToString()]


def _encoded(element: str | bytes) -> bytes:
    return element.encode() if isinstance(element, str) else element


def _objects(elements: Iterable[bytes]) -> Array:
    listed: Sequence[bytes] = list(elements)
    array = np.empty(len(listed), object)
    array[:] = listed
    return array
