"""Protobuf's wire format: counts a message's fields before it is parsed, writes large fields.

Parsing holds the GIL, in any thread: 16 million empty labels (32 MiB) stop the event loop for
0.8 s. A picture of that size is one field, and costs one copy.
"""

from collections.abc import Mapping, Sequence
from enum import Enum, auto
from functools import cache
from typing import Any, Final, TypeAlias, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from visavis_server.errors import InvalidRequest
from visavis_server.settings import MessageLimits

_LONGEST_VARINT_BYTES: Final = 10
_VARINT, _DELIMITED = 0, 2
# Of the fixed-width wire types, in bytes.
_WIDTHS: Final[Mapping[int, int]] = {1: 8, 5: 4}
# Packed values of these types are copied, not decoded one by one.
_FIXED_WIDTH: Final = frozenset(
    (
        FieldDescriptor.TYPE_DOUBLE,
        FieldDescriptor.TYPE_FLOAT,
        FieldDescriptor.TYPE_FIXED64,
        FieldDescriptor.TYPE_FIXED32,
        FieldDescriptor.TYPE_SFIXED64,
        FieldDescriptor.TYPE_SFIXED32,
    )
)


class _Counted(Enum):
    """How the bytes of a length-delimited field are counted."""

    TEXT = auto()
    PACKED = auto()


# By field number. Bytes fields and unknown fields are missing, and skipped.
_Known: TypeAlias = Mapping[int, "_Counted | Descriptor"]


def require_few_fields(data: bytes, message_class: type[Message], limits: MessageLimits) -> None:
    """Raise InvalidRequest if a message exceeds the limits or is malformed.

    Counts the fields of all levels, unknown ones and map entries included; packed integers are
    counted by their bytes. The limits bound the cost, whatever the size of the message: a request
    with a picture takes a few microseconds.
    """
    # A message this small can't exceed a limit.
    if len(data) <= min(limits.fields, limits.text_bytes):
        return
    fields = text_bytes = 0
    position, end = 0, len(data)
    known = _known(cast(Descriptor, message_class.DESCRIPTOR))
    outer: list[tuple[int, _Known]] = []  # enclosing messages, no deeper than the schema
    while True:
        while position == end:
            if not outer:
                return
            end, known = outer.pop()
        tag, position = _varint(data, position, end)
        fields += 1
        kind = tag & 7
        if kind == _DELIMITED:
            length, position = _varint(data, position, end)
            inside = position + length
            if inside > end:
                raise _malformed()
            match known.get(tag >> 3):
                case None:
                    position = inside
                case _Counted.TEXT:
                    text_bytes += length
                    position = inside
                case _Counted.PACKED:
                    fields += length
                    position = inside
                case message:
                    outer.append((end, known))
                    end, known = inside, _known(message)
        else:
            position = _after(kind, data, position, end)
        if position > end:
            raise _malformed()
        if fields > limits.fields:
            raise InvalidRequest(
                "request",
                f"the request has more than {limits.fields} fields, list elements included; send "
                "less in one request, and tensors as raw_input_contents (setting "
                "max_message_fields)",
            )
        if text_bytes > limits.text_bytes:
            raise InvalidRequest(
                "request",
                f"the request has more than {limits.text_bytes} bytes of names and other strings; "
                "shorten them (setting max_message_text_bytes)",
            )


def without(data: bytes, number: int) -> tuple[bytes, list[memoryview]]:
    """Return a message without one of its length-delimited fields, and the contents of that field.

    The contents are views of the data, not copies. Raises InvalidRequest if the message is
    malformed.
    """
    view, kept, removed = memoryview(data), [], []
    position, end = 0, len(data)
    while position < end:
        start = position
        tag, position = _varint(data, position, end)
        kind = tag & 7
        if kind == _DELIMITED:
            length, position = _varint(data, position, end)
            contents, position = view[position : position + length], position + length
            if tag >> 3 == number:
                removed.append(contents)
                start = position
        else:
            position = _after(kind, data, position, end)
        if position > end:
            raise _malformed()
        kept.append(view[start:position])
    return b"".join(kept), removed


def delimited(number: int, pieces: Sequence[Any]) -> list[Any]:
    """Return a length-delimited field as pieces; pieces: its contents, bytes-like."""
    size = sum(memoryview(piece).nbytes for piece in pieces)
    return [_varint_bytes(number << 3 | _DELIMITED) + _varint_bytes(size), *pieces]


@cache
def _known(descriptor: Descriptor) -> _Known:
    known: dict[int, _Counted | Descriptor] = {}
    for field in descriptor.fields:
        if field.message_type is not None:
            known[field.number] = field.message_type
        elif field.type == FieldDescriptor.TYPE_STRING:
            known[field.number] = _Counted.TEXT
        elif field.type != FieldDescriptor.TYPE_BYTES and field.type not in _FIXED_WIDTH:
            known[field.number] = _Counted.PACKED
    return known


def _after(kind: int, data: bytes, position: int, end: int) -> int:
    """Return the position after the value of a field that is not length-delimited."""
    if kind == _VARINT:
        return _varint(data, position, end)[1]
    if kind in _WIDTHS:
        return position + _WIDTHS[kind]
    raise _malformed()  # a group: our messages have none


def _varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """Return the varint at a position, and the position after it."""
    if position < end and (byte := data[position]) < 0x80:
        return byte, position + 1
    value = shift = 0
    for at in range(position, min(end, position + _LONGEST_VARINT_BYTES)):
        byte = data[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at + 1
        shift += 7
    raise _malformed()


def _varint_bytes(value: int) -> bytes:
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)


def _malformed() -> InvalidRequest:
    return InvalidRequest("request", "the request is not a message of the method's request type")
