"""Tensors of the Open Inference Protocol, raw or typed, to NumPy's arrays and back."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from server import grpc_service_pb2 as pb
from server.errors import InvalidRequest

Array = npt.NDArray[Any]
Request = pb.ModelInferRequest
Response = pb.ModelInferResponse

# Datatype: what its elements are, little-endian, and the field of typed contents that has them.
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
    "FP16": ("<f2", ""),  # In raw form only.
    "FP32": ("<f4", "fp32_contents"),
    "FP64": ("<f8", "fp64_contents"),
}
_BYTES = "BYTES"


def read_inputs(request: Request) -> dict[str, Array]:
    """Return a request's inputs by name; those of datatype BYTES hold bytes objects.

    Raises InvalidRequest if one is not what its own shape and datatype say.
    """
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InvalidRequest(
            "raw_input_contents",
            f"there are {len(raw)} raw contents for {len(request.inputs)} inputs; send one each, "
            "or none",
        )
    inputs: dict[str, Array] = {}
    for index, tensor in enumerate(request.inputs):
        field = f"inputs[{index}]"
        if tensor.name in inputs:
            raise InvalidRequest(f"{field}.name", f"the input {tensor.name!r} comes twice")
        if "shared_memory_region" in tensor.parameters:
            raise InvalidRequest(
                f"{field}.parameters", "shared memory is not served; send the contents themselves"
            )
        shape = tuple(tensor.shape)
        if any(size < 0 for size in shape):
            raise InvalidRequest(f"{field}.shape", f"the shape is {list(shape)}; sizes begin at 0")
        if raw and tensor.HasField("contents"):
            raise InvalidRequest(
                f"{field}.contents", "contents come raw or typed; this request has both"
            )
        if raw:
            array = _from_raw(tensor.datatype, raw[index], field)
        else:
            array = _from_typed(tensor.datatype, tensor.contents, field)
        if array.size != math.prod(shape):
            raise InvalidRequest(
                f"{field}.shape",
                f"the shape {list(shape)} takes {math.prod(shape)} elements of {tensor.datatype}, "
                f"and {array.size} came",
            )
        inputs[tensor.name] = array.reshape(shape)
    return inputs


def write_outputs(outputs: Mapping[str, Array], raw: bool) -> Response:
    """Return a response that carries outputs, by name; raw: as bytes, or each in its type.

    BYTES are arrays of objects: strings or bytes.
    """
    response = Response()
    for name, array in outputs.items():
        datatype = datatype_of(array)
        tensor = response.outputs.add(name=name, datatype=datatype, shape=array.shape)
        if raw:
            response.raw_output_contents.append(_to_raw(array))
        else:
            _, contents = _DATATYPES.get(datatype, ("", "bytes_contents"))
            values = map(_encoded, array.flat) if datatype == _BYTES else array.ravel().tolist()
            getattr(tensor.contents, contents).extend(values)
    return response


def datatype_of(array: Array) -> str:
    """Return the protocol's name of an array's datatype."""
    if array.dtype == object:
        return _BYTES
    return next(name for name, (kind, _) in _DATATYPES.items() if np.dtype(kind) == array.dtype)


def _from_raw(datatype: str, data: bytes, field: str) -> Array:
    if datatype == _BYTES:
        return _objects(_elements(data, field))
    kind = np.dtype(_kind(datatype, field)[0])
    if len(data) % kind.itemsize:
        raise InvalidRequest(
            f"{field}.shape", f"{len(data)} bytes are no whole number of {datatype}"
        )
    return np.frombuffer(data, kind)


def _from_typed(datatype: str, contents: pb.InferTensorContents, field: str) -> Array:
    if datatype == _BYTES:
        return _objects(contents.bytes_contents)
    kind, name = _kind(datatype, field)
    if not name:
        raise InvalidRequest(f"{field}.contents", f"{datatype} has a raw form only")
    try:
        return np.array(list(getattr(contents, name)), kind)
    except OverflowError as error:
        raise InvalidRequest(f"{field}.contents", f"not all are {datatype}: {error}") from None


def _kind(datatype: str, field: str) -> tuple[str, str]:
    if datatype not in _DATATYPES:
        raise InvalidRequest(
            f"{field}.datatype",
            f"the datatype is {datatype[:32]!r}; there are {', '.join((*_DATATYPES, _BYTES))}",
        )
    return _DATATYPES[datatype]


def _elements(data: bytes, field: str) -> Iterable[bytes]:
    """Yield the elements of raw BYTES: each has its length in front, in 4 bytes."""
    position = 0
    while position < len(data):
        length = int.from_bytes(data[position : position + 4], "little")
        position += 4
        if position + length > len(data):
            raise InvalidRequest(
                f"{field}.contents", f"an element says it has {length} bytes, more than came"
            )
        yield data[position : position + length]
        position += length


def _to_raw(array: Array) -> bytes:
    if array.dtype != object:
        return array.tobytes()
    elements = map(_encoded, array.flat)
    return b"".join(len(e).to_bytes(4, "little") + e for e in elements)


def _encoded(element: str | bytes) -> bytes:
    return element.encode() if isinstance(element, str) else element


def _objects(elements: Iterable[bytes]) -> Array:
    listed: Sequence[bytes] = list(elements)
    array = np.empty(len(listed), object)
    array[:] = listed
    return array
