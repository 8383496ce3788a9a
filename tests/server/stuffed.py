"""Messages that hold as much of one thing as fits, for every field of a message's type."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

# Of protobuf's wire format.
_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5
_WIDTHS = {
    FieldDescriptor.TYPE_DOUBLE: (_FIXED64, 8),
    FieldDescriptor.TYPE_FIXED64: (_FIXED64, 8),
    FieldDescriptor.TYPE_SFIXED64: (_FIXED64, 8),
    FieldDescriptor.TYPE_FLOAT: (_FIXED32, 4),
    FieldDescriptor.TYPE_FIXED32: (_FIXED32, 4),
    FieldDescriptor.TYPE_SFIXED32: (_FIXED32, 4),
}
_TEXTS = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
# A number that no field of the contract has.
_UNKNOWN = 1000


@dataclass(frozen=True)
class Stuffed:
    """A message of about as many bytes as were asked for; what: which field it is full of."""

    what: str
    data: bytes


def stuffed(descriptor: Any, size: int) -> Iterator[Stuffed]:
    """Yield a message for each field, at every level, that is full of it."""
    yield Stuffed("unknown empty fields", _filled(_tag(_UNKNOWN, _DELIMITED) + b"\0", size))
    yield Stuffed("unknown numbers", _filled(_tag(_UNKNOWN, _VARINT) + b"\0", size))
    yield Stuffed("unknown groups", _filled(_tag(_UNKNOWN, 3) + _tag(_UNKNOWN, 4), size))
    yield Stuffed("one unknown field", delimited(_UNKNOWN, bytes(size)))
    yield Stuffed("bytes that never end a number", b"\x80" * size)
    for what, data in _fields(descriptor, size):
        yield Stuffed(what, data)


def delimited(number: int, contents: bytes) -> bytes:
    """Return one field with its length."""
    return _tag(number, _DELIMITED) + _varint(len(contents)) + contents


def _fields(descriptor: Any, size: int) -> Iterator[tuple[str, bytes]]:
    for field in descriptor.fields:
        name, number = field.name, field.number
        if field.message_type is not None:
            yield f"empty {name}", _filled(_tag(number, _DELIMITED) + b"\0", size)
            for what, data in _fields(field.message_type, size):
                yield f"{name}.{what}", delimited(number, data)
            if field.message_type.GetOptions().map_entry:
                yield f"entries of {name}", _entries(number, size)
        elif field.type in _TEXTS:
            yield f"empty {name}", _filled(_tag(number, _DELIMITED) + b"\0", size)
            yield f"long {name}", delimited(number, b"a" * size)
            yield f"long {name} of two bytes each", delimited(number, "é".encode() * (size // 2))
        else:
            kind, width = _WIDTHS.get(field.type, (_VARINT, 1))
            yield f"{name} one by one", _filled(_tag(number, kind) + b"\1" * width, size)
            if field.is_repeated:
                yield f"{name} packed", delimited(number, b"\1" * (size // width * width))


def _entries(number: int, size: int) -> bytes:
    """Return entries of a map with different keys."""
    entries = bytearray()
    key = 0
    while len(entries) < size:
        entries += delimited(number, delimited(1, b"%x" % key))
        key += 1
    return bytes(entries)


def _filled(element: bytes, size: int) -> bytes:
    return element * (size // len(element))


def _tag(number: int, kind: int) -> bytes:
    return _varint(number << 3 | kind)


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*written, value))
