"""Requests for inference over HTTP, as the messages that gRPC receives."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import numpy as np
from google.protobuf.message import Message

from visavis_server.api.inference import grpc_service_pb2 as pb
from visavis_server.api.inference.messages import read_parameters
from visavis_server.api.inference.parameters import Parameters, truth
from visavis_server.api.inference.rest.json_numbers import Numbers, without_numbers
from visavis_server.api.inference.tensors import BYTES, MAX_RANK, Request, kind_of
from visavis_server.errors import InvalidRequest
from visavis_server.settings import MessageLimits
from visavis_server.transport import json_message

_T = TypeVar("_T")

_SIZE: Final = "binary_data_size"
_SHARED_MEMORY: Final = "shared_memory_region"
_INT64, _UINT64 = 1 << 63, 1 << 64
_LONGEST_REASON: Final = 512
_KINDS: Final[Mapping[Any, str]] = {str: "a string", list: "a list", dict: "an object"}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, and whether each output is wanted in binary; by default JSON."""

    request: Request
    binary: Mapping[str, bool] = field(default_factory=dict)
    binary_by_default: bool = False

    def wants_binary(self, output: str) -> bool:
        """Return True if the elements of an output are wanted in binary."""
        return self.binary.get(output, self.binary_by_default)


def read(
    body: bytes, header_bytes: int | None, name: str, version: str, limits: MessageLimits
) -> Asked:
    """Return a request in JSON, with binary tensors behind it.

    header_bytes: the size of the JSON; None: all of the body. Run it in a thread, as its cost grows
    with the body. Raises InvalidRequest.
    """
    size = len(body) if header_bytes is None else header_bytes
    if size > len(body):
        raise InvalidRequest(
            "request",
            f"Inference-Header-Content-Length is {size}; the body has only {len(body)} bytes",
        )
    try:
        text, arrays = without_numbers(body[:size], limits)
        parsed, cut = json_message.load(text, limits)
        return _Reader(arrays, cut, memoryview(body)[size:]).read(parsed, name, version)
    except (ValueError, RecursionError) as error:
        why = " ".join(str(error)[:_LONGEST_REASON].split()).removeprefix("Failed to load JSON: ")
        raise InvalidRequest("request", f"the request is not JSON: {why}") from None


def read_bare(body: bytes, metadata: pb.ModelMetadataResponse, name: str, version: str) -> Asked:
    """Return a request whose body is the elements of the model's only input, and nothing else.

    Raises InvalidRequest.
    """
    (spec,) = metadata.inputs
    batch, shape = 1, list(spec.shape)[1:]
    if spec.datatype != BYTES:
        one = np.dtype(kind_of(spec.datatype, "inputs[0]")[0]).itemsize * math.prod(shape)
        batch, rest = divmod(len(body), one)
        if rest or not batch:
            raise InvalidRequest(
                "request",
                f"the body has {len(body)} bytes; {spec.name} takes {one} for each picture",
            )
    message = pb.ModelInferRequest(model_name=name, model_version=version)
    message.inputs.add(name=spec.name, datatype=spec.datatype, shape=[batch, *shape])
    return Asked(Request(message, [memoryview(body)]))


class _Reader:
    """Reads one request.

    arrays, strings: what was cut out of its JSON, by mark. binary: what follows the JSON.
    """

    def __init__(
        self, arrays: dict[str, Numbers], strings: dict[str, bytes], binary: memoryview
    ) -> None:
        self._arrays = arrays
        self._strings = strings
        self._binary = binary

    def read(self, parsed: dict[str, Any], name: str, version: str) -> Asked:
        """Return the request, for a version of a model."""
        self._require_in_data(parsed)
        message = pb.ModelInferRequest(
            model_name=name,
            model_version=version,
            id=_value(parsed, "id", str, "", default=""),
        )
        parameters = _add_parameters(message, parsed, "")
        raw: list[Any] = []
        for index, each in enumerate(_value(parsed, "inputs", list, "")):
            raw.append(self._input(message, each, f"inputs[{index}]"))
        if len(self._binary):
            raise InvalidRequest(
                "request",
                f"the body has {len(self._binary)} bytes more than its JSON and each {_SIZE}",
            )
        binary: dict[str, bool] = {}
        for index, each in enumerate(_value(parsed, "outputs", list, "", default=[])):
            where = f"outputs[{index}]"
            wanted = message.outputs.add(name=_value(each, "name", str, where))
            if (yes := truth(_add_parameters(wanted, each, where), "binary_data")) is not None:
                binary[wanted.name] = yes
        if self._arrays:
            raise InvalidRequest("request", "only inputs may have an array of numbers as data")
        json_message.require_none_left(self._strings)
        default = truth(parameters, "binary_data_output") or False
        return Asked(Request(message, raw), binary, default)

    def _require_in_data(self, parsed: dict[str, Any]) -> None:
        """Raise InvalidRequest if what was cut out is not data: its mark would be read instead."""
        inputs = parsed.get("inputs")
        given = inputs if isinstance(inputs, list) else []
        data = set(_texts([each.get("data") for each in given if isinstance(each, dict)]))
        if self._arrays.keys() - data:
            raise InvalidRequest("request", "only inputs may have an array of numbers as data")
        elsewhere = self._strings.keys() - data
        json_message.require_none_left({mark: self._strings[mark] for mark in elsewhere})

    def _input(self, message: pb.ModelInferRequest, given: Any, where: str) -> Any:
        """Add an input to the message, and return its elements as raw contents."""
        shape = _value(given, "shape", list, where)
        if len(shape) > MAX_RANK:
            raise InvalidRequest(
                f"{where}.shape", f"the shape has {len(shape)} dimensions; the limit is {MAX_RANK}"
            )
        if not all(type(size) is int and 0 <= size < _INT64 for size in shape):
            raise InvalidRequest(
                f"{where}.shape", f"the shape is {str(shape)[:64]}; it must be integers from 0 on"
            )
        tensor = message.inputs.add(
            name=_value(given, "name", str, where),
            datatype=_value(given, "datatype", str, where),
            shape=shape,
        )
        parameters = _add_parameters(tensor, given, where)
        if _SIZE in parameters:
            if given.get("data") is not None:
                raise InvalidRequest(f"{where}.data", f"send either data or {_SIZE}, not both")
            return self._taken(parameters[_SIZE], where)
        if _SHARED_MEMORY in parameters:
            return b""  # rejected where all inputs are checked
        data = given.get("data")
        if tensor.datatype == BYTES:
            return self._pictures(data, where)
        array = self._arrays.pop(data, None) if isinstance(data, str) else None
        if array is None:
            raise InvalidRequest(
                f"{where}.data",
                f"{where} needs a list of numbers as data, or the parameter {_SIZE}",
            )
        return array.read(tensor.datatype, math.prod(shape), where).view(np.uint8).data

    def _taken(self, size: object, where: str) -> memoryview:
        """Return the next bytes behind the JSON."""
        left = len(self._binary)
        if type(size) is not int or not 0 <= size <= left:
            raise InvalidRequest(
                f"{where}.parameters",
                f"{_SIZE} is {str(size)[:64]}; it must be an integer up to {left}, the bytes that "
                "follow the JSON and the inputs before",
            )
        taken, self._binary = self._binary[:size], self._binary[size:]
        return taken

    def _pictures(self, data: Any, where: str) -> bytes:
        """Return pictures in base64 as raw contents."""
        pieces: list[bytes] = []
        for text in _flat(data, f"{where}.data"):
            text_bytes = self._strings.pop(text) if text in self._strings else text.encode()
            picture = json_message.from_base64(text_bytes, f"{where}.data")
            pieces += [len(picture).to_bytes(4, "little"), picture]
        return b"".join(pieces)


def _texts(data: Any) -> Iterator[str]:
    """Yield the strings of nested lists, whatever else they contain."""
    if isinstance(data, str):
        yield data
    elif isinstance(data, list):
        for each in data:
            yield from _texts(each)


def _flat(data: Any, where: str, depth: int = 1) -> Iterator[str]:
    """Yield the strings of nested lists."""
    if not isinstance(data, list) or depth > MAX_RANK:
        raise InvalidRequest(
            where, f"BYTES need a list of strings in base64 as data, or the parameter {_SIZE}"
        )
    for each in data:
        if isinstance(each, str):
            yield each
        else:
            yield from _flat(each, where, depth + 1)


def _value(of: Any, name: str, kind: type[_T], where: str, default: _T | None = None) -> _T:
    """Return a value of an object in JSON. Raises InvalidRequest if it is absent or another kind.

    where: the path of the object; empty: the request. default: if it is absent or null.
    """
    if not isinstance(of, dict):
        raise InvalidRequest(where, f"{where} is {str(of)[:64]}; it must be an object")
    value = of.get(name)
    if value is None and default is not None:
        return default
    path = f"{where}.{name}" if where else name
    if not isinstance(value, kind):
        given = "missing" if value is None else str(value)[:64]
        raise InvalidRequest(path, f"{path} is {given}; it must be {_KINDS[kind]}")
    return value


def _add_parameters(message: Message, given: Any, where: str) -> Parameters:
    """Add the parameters of an object in JSON to its message, and return them."""
    parameters: Any = message.parameters  # type: ignore[attr-defined]
    path = f"{where}.parameters" if where else "parameters"
    for name, value in _value(given, "parameters", dict, where, default={}).items():
        parameter = parameters[name]
        if isinstance(value, bool):
            parameter.bool_param = value
        elif isinstance(value, int) and -_INT64 <= value < _INT64:
            parameter.int64_param = value
        elif isinstance(value, int) and 0 <= value < _UINT64:
            parameter.uint64_param = value
        elif isinstance(value, float):
            parameter.double_param = value
        elif isinstance(value, str):
            parameter.string_param = value
        else:
            raise InvalidRequest(
                path, f"{name[:64]} is {str(value)[:64]}; it must be a boolean, number or string"
            )
    return read_parameters(parameters)
