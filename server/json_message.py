"""Messages in protobuf's JSON: read within limits, with long base64 apart from the rest.

`json.loads` holds Python's lock for the whole of a text: 32 MiB of empty lists stop the event loop
for 4.6 s in whichever thread they are read, and a picture of 22 MB in base64 for 0.15 s. So long
texts are cut out first and their base64 is converted piece by piece; what remains is short.
"""

import secrets
from base64 import b64encode
from binascii import a2b_base64
from collections.abc import Iterator
from string import ascii_letters, digits
from typing import Final, TypeVar

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from server.errors import InvalidRequest
from server.settings import MessageLimits

_M = TypeVar("_M", bound=Message)

# Longer texts, and bytes, are handled apart.
_LONG_BYTES: Final = 64 << 10
# Converted at a time, a millisecond or two. In base64 four characters stand for three bytes.
_PIECE_BYTES: Final = 3 << 18
# Brackets, commas, numbers and white space, for each field; indented lists have some 10.
_STRUCTURE_BYTES: Final = 16
_QUOTES: Final = 4
_MAX_BACKSLASHES: Final = 64
# Stands in for long bytes. Random: no sender can write one.
_MARK_BYTES: Final = 18

_URLSAFE: Final = bytes.maketrans(b"-_", b"+/")
# As Python's decoder does, characters outside of the alphabet are dropped.
_ALPHABET: Final = (ascii_letters + digits + "+/-_").encode()
_FOREIGN: Final = bytes(set(range(256)) - set(_ALPHABET))


def read(data: bytes, message_class: type[_M], limits: MessageLimits) -> _M:
    """Return the message of a JSON text; for a thread, as its cost grows with the text.

    Raises InvalidRequest if it holds more than the limits allow, or a long text where the message
    has no bytes; ValueError, RecursionError or json_format.ParseError if it is no such message.
    """
    if data.lstrip()[:1] != b"{":
        raise InvalidRequest("request", "the JSON of a request must be an object: {...}")
    text, cut = _without_long_texts(data, limits)
    message = json_format.Parse(text, message_class())
    for part, field, value in _bytes_fields(message):
        if value in cut:
            setattr(part, field.name, _from_base64(cut.pop(value)))
    for left in cut.values():
        raise InvalidRequest(
            "request",
            f"the request has a text of {len(left)} bytes where no image belongs; the limit is "
            f"{_LONG_BYTES}",
        )
    return message


def write(message: Message) -> bytes:
    """Return a message as JSON, zero values included; for a thread where it is large.

    The message is spent: it loses its long bytes.
    """
    cut = {}
    for part, field, value in _bytes_fields(message):
        if len(value) > _LONG_BYTES:
            mark = secrets.token_bytes(_MARK_BYTES)
            setattr(part, field.name, mark)
            cut[b64encode(mark)] = value
    left = json_format.MessageToJson(
        message, always_print_fields_with_no_presence=True, indent=None, ensure_ascii=False
    ).encode()
    pieces = []
    for mark, value in cut.items():  # in the order of the fields, as they are written
        before, _, left = left.partition(mark)
        starts = range(0, len(value), _PIECE_BYTES)
        pieces += [before, *(b64encode(value[start : start + _PIECE_BYTES]) for start in starts)]
    return b"".join([*pieces, left])


def _without_long_texts(data: bytes, limits: MessageLimits) -> tuple[bytes, dict[bytes, bytes]]:
    """Return JSON with a mark in base64 in place of each long text, and the texts by mark."""
    pieces: list[bytes] = []
    cut: dict[bytes, bytes] = {}
    quotes = structure = text_bytes = position = kept = 0
    while (start := data.find(b'"', position)) >= 0:
        structure += start - position
        start += 1
        end, escaped = _end_of_text(data, start, _QUOTES * limits.fields - quotes)
        quotes += 2 + escaped
        if end - start > _LONG_BYTES:
            mark = secrets.token_bytes(_MARK_BYTES)
            pieces += [data[kept:start], b64encode(mark)]
            cut[mark] = data[start:end]
            kept = end
        else:
            text_bytes += end - start
        if quotes > _QUOTES * limits.fields or text_bytes > limits.text_bytes:
            break
        position = end + 1
    structure += len(data) - position
    for count, limit, what in (
        (quotes, _QUOTES * limits.fields, "quotes"),
        (text_bytes, limits.text_bytes, "bytes of names and other texts"),
        (structure, _STRUCTURE_BYTES * limits.fields, "bytes of brackets, commas and numbers"),
    ):
        if count > limit:
            raise InvalidRequest(
                "request", f"the request has more than {limit} {what}; send less in one request"
            )
    return b"".join([*pieces, data[kept:]]), cut


def _end_of_text(data: bytes, start: int, most: int) -> tuple[int, int]:
    """Return where a text's closing quote is, and how many escaped ones come before it, up to most.

    Raises ValueError if it has none.
    """
    end, escaped = data.find(b'"', start), 0
    while end >= 0:
        backslashes = 0
        while data[end - 1 - backslashes] == ord("\\"):
            backslashes += 1
            if backslashes > _MAX_BACKSLASHES:
                raise ValueError("a text has more backslashes in a row than any that is meant")
        if backslashes % 2 == 0 or escaped > most:
            return end, escaped
        escaped += 1
        end = data.find(b'"', end + 1)
    raise ValueError("a text does not end")


def _from_base64(text: bytes) -> bytes:
    """Return the bytes of base64 as it stands in JSON; raises ValueError."""
    decoded, left, position = [], b"", 0
    while position < len(text):
        end = position + _PIECE_BYTES
        if text[end - 1 : end] == b"\\":
            end += 1
        piece, position = text[position:end], end
        if b"\\" in piece:
            piece = piece.replace(b"\\/", b"/").replace(b"\\n", b"").replace(b"\\r", b"")
            if b"\\" in piece:
                raise ValueError("base64 with an escaped character that is not part of it")
        left += piece.translate(_URLSAFE, _FOREIGN)
        whole = len(left) // 4 * 4
        decoded.append(a2b_base64(left[:whole]))
        left = left[whole:]
    decoded.append(a2b_base64(left + b"=" * (-len(left) % 4)))
    return b"".join(decoded)


def _bytes_fields(message: Message) -> Iterator[tuple[Message, FieldDescriptor, bytes]]:
    """Yield the fields of bytes, of which there is one each, with the message that has them."""
    for field, value in message.ListFields():
        if isinstance(value, Message):
            yield from _bytes_fields(value)
        elif isinstance(value, bytes):
            yield message, field, value
