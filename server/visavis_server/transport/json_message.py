"""Protobuf's JSON, read within limits, with long base64 handled separately.

`json.loads` holds the GIL until it returns: in any thread, 32 MiB of empty lists stop the event
loop for 4.6 s, and a picture of 22 MB in base64 stops it for 0.15 s. Therefore long strings are cut
out first, and their base64 is converted in pieces; the rest is short.
"""

import json
import secrets
from base64 import b64encode
from binascii import a2b_base64
from collections.abc import Iterator, Mapping
from string import ascii_letters, digits
from typing import Any, Final, TypeVar

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from visavis_server.errors import InvalidRequest
from visavis_server.settings import MessageLimits

_M = TypeVar("_M", bound=Message)

# Longer strings and bytes are handled separately.
_LONG_BYTES: Final = 64 << 10
# Converted at a time, in 1 to 2 ms. Four characters of base64 encode three bytes.
_PIECE_BYTES: Final = 3 << 18
# Brackets, commas, numbers and white space per field; indented lists have about 10.
_STRUCTURE_BYTES: Final = 16
QUOTES_PER_FIELD: Final = 4
_MAX_BACKSLASHES: Final = 64
# A placeholder of a long string. Random, so that no client can send one.
_MARK_BYTES: Final = 18

_URLSAFE: Final = bytes.maketrans(b"-_", b"+/")
_ALPHABET: Final = (ascii_letters + digits + "+/-_=").encode()
# The length of \u002b.
_LONGEST_ESCAPE: Final = 6


def read(data: bytes, message_class: type[_M], limits: MessageLimits) -> _M:
    """Return the message in a JSON text; run it in a thread, as its cost grows with the text.

    Raises InvalidRequest if the text exceeds the limits, or has a long string outside of a bytes
    field, or invalid base64 in one; ValueError, RecursionError or json_format.ParseError if it is
    not such a message.
    """
    parsed, cut = load(data, limits)
    long: dict[bytes, bytes] = {}
    for path, base64 in _base64_texts(parsed, message_class.DESCRIPTOR):
        if base64 in cut:
            long[a2b_base64(base64)] = from_base64(cut.pop(base64), path)
        else:
            from_base64(base64.encode(), path)
    require_none_left(cut)
    message = json_format.ParseDict(parsed, message_class())
    for part, field, value in _bytes_fields(message):
        if value in long:
            setattr(part, field.name, long.pop(value))
    return message


def load(data: bytes, limits: MessageLimits) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return the object in a JSON text, and its long strings by the marks in their places.

    The strings are unread: with their escapes. Run it in a thread. Raises InvalidRequest if the
    text exceeds the limits; ValueError or RecursionError if it is not JSON.
    """
    if data.lstrip()[:1] != b"{":
        raise InvalidRequest("request", "the JSON of a request must be an object: {...}")
    text, cut = _without_long_strings(data, limits)
    try:
        parsed = json.loads(text.decode(), object_pairs_hook=_with_proper_names)
    except ValueError as error:
        raise ValueError(f"Failed to load JSON: {error}") from None
    return parsed, cut


def require_none_left(cut: Mapping[str, bytes]) -> None:
    """Raise InvalidRequest if a long string was not the value of a bytes field."""
    for left in cut.values():
        raise InvalidRequest(
            "request",
            f"the request has a string of {len(left)} bytes outside of an image; the limit is "
            f"{_LONG_BYTES}",
        )


def write(message: Message) -> bytes:
    """Return a message as JSON, zero values included; run it in a thread if it is large.

    Consumes the message: its long bytes are replaced.
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


def _with_proper_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; raises ValueError for a repeated name, which JSON would overwrite.

    Also for a name with a lone surrogate, for which protobuf raises SystemError.
    """
    if len(named := dict(pairs)) < len(pairs):
        raise ValueError("an object in the JSON repeats a name")
    try:
        "".join(named).encode()
    except UnicodeEncodeError:
        raise ValueError("a name in the JSON has a lone surrogate") from None
    return named


def _without_long_strings(data: bytes, limits: MessageLimits) -> tuple[bytes, dict[str, bytes]]:
    """Return JSON with each long string replaced by a mark in base64, and the strings by mark."""
    pieces: list[bytes] = []
    cut: dict[str, bytes] = {}
    quotes = structure = text_bytes = position = kept = 0
    while (start := data.find(b'"', position)) >= 0:
        structure += start - position
        start += 1
        end, escaped = end_of_string(data, start, QUOTES_PER_FIELD * limits.fields - quotes)
        quotes += 2 + escaped
        if end - start > _LONG_BYTES:
            mark = b64encode(secrets.token_bytes(_MARK_BYTES))
            pieces += [data[kept:start], mark]
            cut[mark.decode()] = data[start:end]
            kept = end
        else:
            text_bytes += end - start
        if quotes > QUOTES_PER_FIELD * limits.fields or text_bytes > limits.text_bytes:
            break
        position = end + 1
    structure += len(data) - position
    for count, limit, unit in (
        (quotes, QUOTES_PER_FIELD * limits.fields, "quotes"),
        (text_bytes, limits.text_bytes, "bytes of names and other strings"),
        (structure, _STRUCTURE_BYTES * limits.fields, "bytes of brackets, commas and numbers"),
    ):
        if count > limit:
            raise InvalidRequest(
                "request", f"the request has more than {limit} {unit}; send less in one request"
            )
    return b"".join([*pieces, data[kept:]]), cut


def end_of_string(data: bytes, start: int, most: int) -> tuple[int, int]:
    """Return the index of a string's closing quote, and the number of escaped ones, up to most.

    Raises ValueError if the string has no closing quote.
    """
    end, escaped = data.find(b'"', start), 0
    while end >= 0:
        backslashes = 0
        while data[end - 1 - backslashes] == ord("\\"):
            backslashes += 1
            if backslashes > _MAX_BACKSLASHES:
                raise ValueError(f"a string has more than {_MAX_BACKSLASHES} backslashes in a row")
        if backslashes % 2 == 0 or escaped > most:
            return end, escaped
        escaped += 1
        end = data.find(b'"', end + 1)
    raise ValueError("a string has no closing quote")


def _base64_texts(parsed: object, descriptor: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the path and the string of each bytes field in a message's JSON.

    Skips values of the wrong type: protobuf rejects them.
    """
    if not isinstance(parsed, dict):
        return
    for field in descriptor.fields:
        for name in {field.json_name, field.name} & parsed.keys():
            value = parsed[name]
            values = value if field.is_repeated and isinstance(value, list) else [value]
            for item in values:
                if field.message_type is not None:
                    yield from _base64_texts(item, field.message_type, f"{path}{field.name}.")
                elif field.type == FieldDescriptor.TYPE_BYTES and isinstance(item, str):
                    yield f"{path}{field.name}", item


def from_base64(text: bytes, field: str) -> bytes:
    """Return the bytes of a JSON string of base64: standard or URL-safe, with or without padding.

    Raises InvalidRequest for the field for anything else: Python's decoder would skip invalid
    characters, and return wrong bytes.
    """
    if text.startswith((b"data:", b"http://", b"https://")):
        raise InvalidRequest(
            field,
            f"{field} begins with {text[: text.find(b':') + 1].decode()!r}; send only base64: the "
            "part of a data: URI after `base64,`, or the bytes of a URL's picture",
        )
    decoded: list[bytes] = []
    left = b""
    for piece in _unescaped(text, field):
        if foreign := piece.translate(None, _ALPHABET):
            raise _no_base64(field, foreign)
        left += piece.translate(_URLSAFE)
        whole = len(left) // 4 * 4
        if b"===" in left or (decoded and len(decoded[-1]) % 3 and left):
            raise _no_base64(field)  # Padding has at most two characters, at the end.
        decoded.append(_decoded(left[:whole], field))
        left = left[whole:]
    decoded.append(_decoded(left + b"=" * (-len(left) % 4), field))
    return b"".join(decoded)


def _unescaped(text: bytes, field: str) -> Iterator[bytes]:
    """Yield a JSON string in pieces, without its escapes: .NET, for example, escapes a +."""
    position = 0
    while position < len(text):
        end = position + _PIECE_BYTES
        if end < len(text):
            # Never split an escape.
            escape = text.rfind(b"\\", max(position + 1, end - _LONGEST_ESCAPE), end)
            end = escape if escape > 0 else end
        piece, position = text[position:end], end
        if b"\\" in piece:
            try:
                piece = json.loads(b'"' + piece + b'"').encode()
            except ValueError:
                raise _no_base64(field, b"\\") from None
        yield piece


def _decoded(base64: bytes, field: str) -> bytes:
    try:
        return a2b_base64(base64, strict_mode=True)
    except ValueError:
        raise _no_base64(field) from None


def _no_base64(field: str, foreign: bytes = b"") -> InvalidRequest:
    """Return the error for invalid base64; foreign: its invalid characters."""
    if foreign:
        first = foreign.decode(errors="replace")[0]
        why = f"it has the character {first!r}"
        if first == " ":
            why += ", which form encoding makes of +"
    else:
        why = "its length or padding is wrong; it may be cut off"
    return InvalidRequest(field, f"{field} is not base64: {why}")


def _bytes_fields(message: Message) -> Iterator[tuple[Message, FieldDescriptor, bytes]]:
    """Yield the singular bytes fields: the message that has the field, the field, its value."""
    for field, value in message.ListFields():
        if isinstance(value, Message):
            yield from _bytes_fields(value)
        elif isinstance(value, bytes):
            yield message, field, value
