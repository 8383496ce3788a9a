"""Messages in protobuf's JSON: read within limits, with long base64 apart from the rest.

`json.loads` holds Python's lock for the whole of a text: 32 MiB of empty lists stop the event loop
for 4.6 s in whichever thread they are read, and a picture of 22 MB in base64 for 0.15 s. So long
texts are cut out first and their base64 is converted piece by piece; what remains is short.
"""

import json
import secrets
from base64 import b64encode
from binascii import a2b_base64
from collections.abc import Iterator
from string import ascii_letters, digits
from typing import Any, Final, TypeVar

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from visavis_server.errors import InvalidRequest
from visavis_server.settings import MessageLimits

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
_ALPHABET: Final = (ascii_letters + digits + "+/-_=").encode()
# As \u002b.
_LONGEST_ESCAPE: Final = 6


def read(data: bytes, message_class: type[_M], limits: MessageLimits) -> _M:
    """Return the message of a JSON text; for a thread, as its cost grows with the text.

    Raises InvalidRequest if it holds more than the limits allow, a long text where the message
    has no bytes, or text that is no base64 where it has; ValueError, RecursionError or
    json_format.ParseError if it is no such message.
    """
    if data.lstrip()[:1] != b"{":
        raise InvalidRequest("request", "the JSON of a request must be an object: {...}")
    text, cut = _without_long_texts(data, limits)
    try:
        parsed = json.loads(text.decode(), object_pairs_hook=_without_repeated_names)
    except ValueError as error:
        raise ValueError(f"Failed to load JSON: {error}") from None
    long: dict[bytes, bytes] = {}
    for path, base64 in _base64_texts(parsed, message_class.DESCRIPTOR):
        if base64 in cut:
            long[a2b_base64(base64)] = _from_base64(cut.pop(base64), path)
        else:
            _from_base64(base64.encode(), path)
    for left in cut.values():
        raise InvalidRequest(
            "request",
            f"the request has a text of {len(left)} bytes where no image belongs; the limit is "
            f"{_LONG_BYTES}",
        )
    message = json_format.ParseDict(parsed, message_class())
    for part, field, value in _bytes_fields(message):
        if value in long:
            setattr(part, field.name, long.pop(value))
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


def _without_repeated_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; ValueError if it has a name twice, of which JSON keeps the last."""
    if len(named := dict(pairs)) < len(pairs):
        raise ValueError("an object of the JSON has one name twice")
    return named


def _without_long_texts(data: bytes, limits: MessageLimits) -> tuple[bytes, dict[str, bytes]]:
    """Return JSON with a mark in base64 in place of each long text, and the texts by mark."""
    pieces: list[bytes] = []
    cut: dict[str, bytes] = {}
    quotes = structure = text_bytes = position = kept = 0
    while (start := data.find(b'"', position)) >= 0:
        structure += start - position
        start += 1
        end, escaped = _end_of_text(data, start, _QUOTES * limits.fields - quotes)
        quotes += 2 + escaped
        if end - start > _LONG_BYTES:
            mark = b64encode(secrets.token_bytes(_MARK_BYTES))
            pieces += [data[kept:start], mark]
            cut[mark.decode()] = data[start:end]
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


def _base64_texts(parsed: object, descriptor: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the texts that stand for bytes in a message's JSON, each with its field's path.

    What isn't shaped as the message is passed over: protobuf refuses it.
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


def _from_base64(text: bytes, field: str) -> bytes:
    """Return the bytes of base64 as it stands in JSON: as protobuf has it, for URLs or not.

    Padding may be missing. Raises InvalidRequest on the field for anything else: Python's own
    decoder drops characters that don't belong there, and makes other bytes of the rest.
    """
    if text.startswith((b"data:", b"http://", b"https://")):
        raise InvalidRequest(
            field,
            f"{field} begins with {text[: text.find(b':') + 1].decode()!r}; it must be base64 "
            "alone: of a data: URI what follows `base64,`, of a URL the bytes of its picture",
        )
    decoded: list[bytes] = []
    left = b""
    for piece in _unescaped(text, field):
        if foreign := piece.translate(None, _ALPHABET):
            raise _no_base64(field, foreign)
        left += piece.translate(_URLSAFE)
        whole = len(left) // 4 * 4
        if b"===" in left or (decoded and len(decoded[-1]) % 3 and left):
            raise _no_base64(field)  # Padding is two characters at most, and the end.
        decoded.append(_decoded(left[:whole], field))
        left = left[whole:]
    decoded.append(_decoded(left + b"=" * (-len(left) % 4), field))
    return b"".join(decoded)


def _unescaped(text: bytes, field: str) -> Iterator[bytes]:
    """Yield a text of JSON piece by piece, without its escapes: .NET, for one, escapes a +."""
    position = 0
    while position < len(text):
        end = position + _PIECE_BYTES
        if end < len(text):
            # No escape is divided.
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
    """Return why a text is no base64; foreign: characters of it that don't belong there."""
    if foreign:
        first = foreign.decode(errors="replace")[0]
        why = f"it has the character {first!r}"
        if first == " ":
            why += ", which a form encoder makes of +"
    else:
        why = "its length or its padding with = is wrong; it may be cut off"
    return InvalidRequest(field, f"{field} is not base64: {why}")


def _bytes_fields(message: Message) -> Iterator[tuple[Message, FieldDescriptor, bytes]]:
    """Yield the fields of bytes, of which there is one each, with the message that has them."""
    for field, value in message.ListFields():
        if isinstance(value, Message):
            yield from _bytes_fields(value)
        elif isinstance(value, bytes):
            yield message, field, value
