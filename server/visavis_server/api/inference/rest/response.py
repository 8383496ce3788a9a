"""Responses of the Open Inference Protocol over HTTP."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import Message

from visavis_server.api.inference import grpc_service_pb2 as pb
from visavis_server.api.inference.rest.request import Asked
from visavis_server.api.inference.tensors import BYTES, Array, datatype_of, to_raw
from visavis_server.errors import InvalidRequest

# Written at a time, in about a millisecond: json.dumps holds the GIL until it returns.
_AT_ONCE: Final = 2048


@dataclass(frozen=True, slots=True)
class Written:
    """The body of a response; header_bytes: the size of its JSON, if binary tensors follow."""

    body: bytes
    header_bytes: int | None


def write(
    response: pb.ModelInferResponse, outputs: Mapping[str, Array], asked: Asked, most_bytes: int
) -> Written:
    """Return a response in JSON, and behind it the outputs that are wanted in binary.

    Run it in a thread, as its cost grows with the outputs. Raises InvalidRequest if the body would
    be larger than most_bytes: numbers take five times as much in JSON.
    """
    head: dict[str, Any] = {
        "model_name": response.model_name,
        "model_version": response.model_version,
    }
    if response.id:
        head["id"] = response.id
    pieces, raw = [f'{_json(head)[:-1]},"outputs":['.encode()], list[Any]()
    size = 0
    for index, (name, array) in enumerate(outputs.items()):
        tensor: dict[str, Any] = {
            "name": name,
            "datatype": datatype_of(array),
            "shape": list(array.shape),
        }
        if asked.wants_binary(name):
            contents = to_raw(array)
            raw.append(contents)
            tensor["parameters"] = {"binary_data_size": memoryview(contents).nbytes}
            written = iter([_json(tensor)[:-1].encode()])
        else:
            written = _with_data(tensor, array)
        pieces.append(b"," if index else b"")
        for piece in written:
            pieces.append(piece)
            size += len(piece)
            if size > most_bytes:
                raise InvalidRequest(
                    "outputs",
                    f"the response has more than {most_bytes} bytes in JSON; ask for the outputs "
                    "in binary, with the parameter binary_data",
                )
        pieces.append(b"}")
    pieces.append(b"]}")
    header = b"".join(pieces)
    return Written(b"".join([header, *raw]), len(header) if raw else None)


def plain(message: Message) -> dict[str, Any]:
    """Return a message as Triton writes it in JSON.

    Fields are named as in the proto, 64-bit integers are numbers, and zeros are included.
    """
    fields: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            fields[field.name] = {key: _plain(field, item) for key, item in value.items()}
        elif field.is_repeated:
            fields[field.name] = [_plain(field, item) for item in value]
        else:
            fields[field.name] = _plain(field, value)
    return fields


def _plain(field: Any, value: Any) -> Any:
    if isinstance(value, Message):
        return plain(value)
    return field.enum_type.values_by_number[value].name if field.enum_type else value


def _with_data(tensor: dict[str, Any], array: Array) -> Iterator[bytes]:
    """Yield an output in JSON in pieces, without its last bracket; NaN raises InvalidRequest."""
    yield f'{_json(tensor)[:-1]},"data":['.encode()
    flat = array.reshape(-1)
    for start in range(0, len(flat), _AT_ONCE):
        values = flat[start : start + _AT_ONCE].tolist()
        if tensor["datatype"] == BYTES:
            values = [v if isinstance(v, str) else v.decode(errors="replace") for v in values]
        try:
            text = _json(values)[1:-1]
        except ValueError:
            raise InvalidRequest(
                "outputs",
                f"{tensor['name']} has NaN or infinity, which JSON has not; ask for it in binary, "
                "with the parameter binary_data",
            ) from None
        yield (f",{text}" if start else text).encode()
    yield b"]"


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
