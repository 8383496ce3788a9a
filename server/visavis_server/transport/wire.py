"""Protobuf's wire format: counts what a message holds before it is parsed, writes large fields.

Parsing holds Python's lock, in whichever thread it runs: 16 million empty labels, 32 MiB, stop the
event loop for 0.8 s. A picture of that size is one field, and takes a copy.
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
# In bytes, of the other kinds of fields.
_WIDTHS: Final[Mapping[int, int]] = {1: 8, 5: 4}
# Packed, these are copied and not decoded one by one.
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
    """What the bytes of a length-delimited field count as."""

    TEXT = auto()
    PACKED = auto()


# By a field's number; bytes, and fields that are not known, are missing and skipped.
_Known: TypeAlias = Mapping[int, "_Counted | Descriptor"]


def require_few_fields(data: bytes, message_class: type[Message], limits: MessageLimits) -> None:
    """Raise InvalidRequest if a message holds more than the limits allow, or is malformed.

    Fields count at every level, unknown ones and entries of maps included; lists of integers that
    are packed into one count by their bytes. The cost is bounded by the limit, whatever the size:
    a picture in its request takes some microseconds.
    """
    # A message this small can't exceed any of them.
    if len(data) <= min(limits.fields, limits.text_bytes):
        return
    fields = text_bytes = 0
    position, end = 0, len(data)
    known = _known(cast(Descriptor, message_class.DESCRIPTOR))
    outer: list[tuple[int, _Known]] = []  # enclosing messages; as deep as the schema
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
                f"the request has more than {limits.fields} fields, elements of lists included; "
                "send less in one request, and tensors as raw_input_contents (setting "
                "max_message_fields)",
            )
        if text_bytes > limits.text_bytes:
            raise InvalidRequest(
                "request",
                f"the request has more than {limits.text_bytes} bytes of names and other texts; "
                "shorten them (setting max_message_text_bytes)",
            )


def without(data: bytes, number: int) -> tuple[bytes, list[memoryview]]:
    """Return a message without one of its length-delimited fields, and what that field holds.

    The contents are views of the data: large ones need not be copied. Raises InvalidRequest if the
    message is malformed.
    """
    view, left, found = memoryview(data), [], []
    position, end = 0, len(data)
    while position < end:
        start = position
        tag, position = _varint(data, position, end)
        kind = tag & 7
        if kind == _DELIMITED:
            length, position = _varint(data, position, end)
            contents, position = view[position : position + length], position + length
            if tag >> 3 == number:
                found.append(contents)
                start = position
        else:
            position = _after(kind, data, position, end)
        if position > end:
            raise _malformed()
        left.append(view[start:position])
    return b"".join(left), found


def delimited(number: int, pieces: Sequence[Any]) -> list[Any]:
    """Return a length-delimited field whose contents are bytes-like pieces, as pieces."""
    size = sum(memoryview(piece).nbytes for piece in pieces)
    return [_written(number << 3 | _DELIMITED) + _written(size), *pieces]


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
    """Return where the next field begins, behind one of a kind that has no length."""
    if kind == _VARINT:
        return _varint(data, position, end)[1]
    if kind in _WIDTHS:
        return position + _WIDTHS[kind]
    raise _malformed()  # Groups: no message of the contract has one.


def _varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """Return the number at a position, and where the next field begins."""
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


def _written(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def _malformed() -> InvalidRequest:
    return InvalidRequest("request", "the request is no message of the method's type")
