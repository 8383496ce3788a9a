"""Tensors in JSON, read in pieces.

`json.loads` holds the GIL until it returns: a tensor of 24 MB would stop the event loop for half a
second. So arrays of numbers are first cut out of the text, and then read one piece at a time.
"""

import json
import re
import secrets
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import numpy as np

from visavis_server.api.inference.tensors import MAX_RANK, Array, kind_of
from visavis_server.errors import InvalidRequest
from visavis_server.settings import MessageLimits
from visavis_server.transport.json_message import QUOTES_PER_FIELD, end_of_string

# Read at a time, in less than a millisecond.
_PIECE_BYTES: Final = 32 << 10
# Of one number, with the white space around it.
_LONGEST_BYTES: Final = 4 << 10
# White space between two lists.
_MOST_SPACE_BYTES: Final = 1 << 10
# Lists per field of a message; a tensor with more can be flat.
_LISTS_PER_FIELD: Final = 4
_MARK_BYTES: Final = 18

_KEY: Final = b"data"
_BEGINS: Final = re.compile(rb"[ \t\r\n]{0,64}:[ \t\r\n]{0,64}\[")
_OPENING: Final = ord("[")
# The types that JSON's numbers and booleans have in Python, by the kind of NumPy's type.
_TYPES: Final[dict[str, set[type]]] = {"b": {bool}, "f": {int, float}, "i": {int}, "u": {int}}


@dataclass(frozen=True, slots=True)
class Numbers:
    """An array of numbers in a JSON text, not yet read; lists: the contents of its innermost lists.

    Each list is a range of positions in the text.
    """

    text: bytes
    lists: Sequence[tuple[int, int]]

    def read(self, datatype: str, count: int, field: str) -> Array:
        """Return the numbers as a flat array. Run it in a thread, as its cost grows with them.

        count: as many as the shape has. Raises InvalidRequest if there are more or fewer, or if one
        is not of the datatype.
        """
        kind = np.dtype(kind_of(datatype, field)[0])
        if count > sum(stop - start for start, stop in self.lists):  # bytes
            raise InvalidRequest(
                f"{field}.shape", f"the shape has {count} elements; data has fewer"
            )
        array = np.empty(count, kind)
        filled = 0
        for values in self._values(field):
            _require(_TYPES[kind.kind], values, datatype, field)
            part = array[filled : filled + len(values)]
            filled += len(values)
            if filled > count:
                raise InvalidRequest(
                    f"{field}.shape", f"the shape has {count} elements; data has more"
                )
            _fill(part, values, datatype, field)
        if filled < count:
            raise InvalidRequest(
                f"{field}.shape", f"the shape has {count} elements; data has {filled}"
            )
        return array

    def _values(self, field: str) -> Iterator[list[Any]]:
        """Yield the values in pieces."""
        text = self.text
        for position, stop in self.lists:
            if stop - position < _LONGEST_BYTES and not text[position:stop].strip():
                continue  # an empty list
            while True:
                end = stop
                if stop - position > _PIECE_BYTES + _LONGEST_BYTES:
                    cut = position + _PIECE_BYTES
                    end = text.find(b",", cut, cut + _LONGEST_BYTES)
                    if end < 0:
                        raise InvalidRequest(
                            f"{field}.data",
                            f"data has a number, or white space, of over {_LONGEST_BYTES} bytes",
                        )
                yield _loaded(text[position:end], field)
                if end == stop:
                    break
                position = end + 1


def without_numbers(data: bytes, limits: MessageLimits) -> tuple[bytes, dict[str, Numbers]]:
    """Return JSON with each array of numbers in a `data` replaced by a mark, and those by mark.

    Whatever it leaves in place, `json_message.load` checks. Raises InvalidRequest if there are more
    lists than the limits allow; ValueError if the text is not JSON.
    """
    pieces: list[bytes] = []
    arrays: dict[str, Numbers] = {}
    position = kept = quotes = 0
    most = QUOTES_PER_FIELD * limits.fields
    while quotes <= most and (start := data.find(b'"', position) + 1):
        end, escaped = end_of_string(data, start, most - quotes)
        quotes += 2 + escaped
        position = end + 1
        if end - start != len(_KEY) or data[start:end] != _KEY:
            continue
        if (begins := _BEGINS.match(data, position)) is None:
            continue
        begin = begins.end() - 1
        found = _array(data, begin, _LISTS_PER_FIELD * limits.fields)
        if found is None:
            continue
        lists, position = found
        mark = b64encode(secrets.token_bytes(_MARK_BYTES))
        pieces += [data[kept:begin], b'"', mark, b'"']
        arrays[mark.decode()] = Numbers(data, lists)
        kept = position
    return (b"".join([*pieces, data[kept:]]) if arrays else data), arrays


def _array(data: bytes, begin: int, most: int) -> tuple[list[tuple[int, int]], int] | None:
    """Return the innermost lists of an array of numbers, and the position after the array.

    begin: the position of its first bracket; most: the lists that it may have. None: it has a
    string, or no end. Raises InvalidRequest if it is no array of equally deep lists.
    """
    stop = data.find(b'"', begin)
    lists: list[tuple[int, int]] = []
    depth = 0
    last = begin - 1
    brackets = _brackets(data, begin, len(data) if stop < 0 else stop)
    for count, at in enumerate(brackets, 1):
        if count > 2 * most:
            raise _malformed(f"data has more than {most} lists; send it flat")
        opens, after_opening = data[at] == _OPENING, count > 1 and data[last] == _OPENING
        if opens or not after_opening:
            expected = b"," if opens and count > 1 and not after_opening else b""
            if at - last > _MOST_SPACE_BYTES or data[last + 1 : at].strip() != expected:
                raise _malformed("data must be a list of numbers, or of lists of numbers")
        else:
            lists.append((last + 1, at))
        depth += 1 if opens else -1
        if depth > MAX_RANK:
            raise _malformed(f"data is nested deeper than {MAX_RANK} lists, the limit")
        if not depth:
            return lists, at + 1
        last = at
    return None


def _brackets(data: bytes, start: int, stop: int) -> Iterator[int]:
    """Yield the positions of square brackets; every byte is searched once for each kind."""
    opening, closing = data.find(b"[", start, stop), data.find(b"]", start, stop)
    while opening >= 0 or closing >= 0:
        if opening >= 0 and (closing < 0 or opening < closing):
            yield opening
            opening = data.find(b"[", opening + 1, stop)
        else:
            yield closing
            closing = data.find(b"]", closing + 1, stop)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON; send it as binary data")


_decoder: Final = json.JSONDecoder(parse_constant=_no_constant)


def _loaded(piece: bytes, field: str) -> list[Any]:
    """Return the values of a piece of a list."""
    try:
        if not piece.strip():
            raise ValueError("a number is missing beside a comma")
        values: list[Any] = _decoder.decode(f"[{piece.decode('ascii')}]")
        return values
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(
            f"{field}.data", f"data is not a list of numbers in JSON: {error}"
        ) from None


def _require(types: set[type], values: list[Any], datatype: str, field: str) -> None:
    """Raise InvalidRequest if a value is of another type."""
    if types.issuperset(map(type, values)):
        return
    odd = next(value for value in values if type(value) not in types)
    raise InvalidRequest(f"{field}.data", f"data has {str(odd)[:64]}, which is not {datatype}")


def _fill(part: Array, values: list[Any], datatype: str, field: str) -> None:
    """Set the elements of an array. Raises InvalidRequest if one is out of range."""
    try:
        with np.errstate(over="ignore"):
            part[:] = values
        if part.dtype.kind == "f" and not np.isfinite(part).all():
            raise OverflowError
    except OverflowError:
        raise InvalidRequest(
            f"{field}.data", f"data has a number that is out of range for {datatype}"
        ) from None


def _malformed(why: str) -> InvalidRequest:
    return InvalidRequest("inputs.data", why)
