"""Counts the groups of prefix codes of a lossless WebP: libwebp allocates 12 KB for each.

A file of 300 KB can have 65,536 groups for a picture of one megapixel. Their number follows small
images that describe how the picture's blocks are transformed and coded. These are read here as far
as necessary to find their end.
Specification: RFC 9649, section 3. The comments give its section numbers.
"""

from typing import Final

from visavis_server.errors import InvalidRequest

MAX_GROUPS: Final = 4096  # libwebp's encoder writes at most 2,600.
# At 18 MP, libwebp's encoder writes 74,000 with its best settings, and usually a tenth of it.
MAX_SYMBOLS: Final = 100_000

_PREDICTOR, _COLOR, _SUBTRACT_GREEN, _COLOR_INDEXING = range(4)
_LITERALS, _LENGTHS, _DISTANCES, _LARGEST_CACHE = 256, 24, 40, 2048
_CODE_LENGTH_ORDER = (17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)

# A prefix code: a mask, and by the masked next bits, the symbol and its length in bits.
_Code = tuple[int, list[tuple[int, int]]]


class _Damaged(Exception):
    """The image is damaged."""


class _Bits:
    """A reader of bits, the lowest of each byte first. A few zeros follow the end."""

    def __init__(self, data: bytes) -> None:
        self._data, self._position = data, 0
        self._end = 8 * len(data)

    def peek(self) -> int:
        """Return at least the next 60 bits: four codes of 15."""
        at = self._position >> 3
        return int.from_bytes(self._data[at : at + 9], "little") >> (self._position & 7)

    def skip(self, count: int) -> None:
        """Skip bits."""
        self._position += count
        if self._position > self._end:
            raise _Damaged

    def read(self, count: int) -> int:
        """Read the next bits."""
        value = self.peek() & ((1 << count) - 1)
        self.skip(count)
        return value

    def symbol(self, code: _Code) -> int:
        """Read the symbol of the next code."""
        mask, table = code
        symbol, length = table[self.peek() & mask]
        self.skip(length)
        return symbol


def count_groups(content: bytes, field: str) -> tuple[int, int]:
    """Return the number of groups of prefix codes of an image, and of the symbols read to find it.

    content: the content of the chunk VP8L. Raises InvalidRequest on `field`: damaged, or more of
    either than any encoder writes.
    """
    try:
        groups, symbols = _count(_Bits(content), field)
    except _Damaged:
        raise InvalidRequest(field, "the WebP is damaged: its prefix codes are invalid") from None
    if groups > MAX_GROUPS:
        raise InvalidRequest(
            field, f"the WebP has {groups} groups of prefix codes; the limit is {MAX_GROUPS}"
        )
    return groups, symbols


def _count(bits: _Bits, field: str) -> tuple[int, int]:
    bits.skip(8)  # the signature
    width, height = 1 + bits.read(14), 1 + bits.read(14)
    bits.skip(4)  # alpha, version
    symbols = 0

    def read_image(columns: int, rows: int) -> int:
        nonlocal symbols
        symbols += columns * rows
        if symbols > MAX_SYMBOLS:
            raise InvalidRequest(
                field, f"the WebP describes its blocks with more than {MAX_SYMBOLS} pixels"
            )
        return _read_image(bits, columns * rows)

    transforms = set()
    while bits.read(1):  # 4: transforms
        kind = bits.read(2)
        if kind in transforms:
            raise _Damaged
        transforms.add(kind)
        if kind in (_PREDICTOR, _COLOR):
            size = bits.read(3) + 2
            read_image(_blocks(width, size), _blocks(height, size))
        elif kind == _COLOR_INDEXING:
            colors = bits.read(8) + 1
            read_image(colors, 1)
            # 4.4: with few colours, pixels share a byte
            width = _blocks(width, sum(colors <= most for most in (2, 4, 16)))
    if bits.read(1):  # 5.2.3: a color cache
        bits.skip(4)
    if not bits.read(1):  # 6.2.2: meta prefix codes
        return 1, symbols
    size = bits.read(3) + 2
    return read_image(_blocks(width, size), _blocks(height, size)) + 1, symbols


def _blocks(side: int, size: int) -> int:
    """Return the number of blocks of 2^size pixels that cover a side."""
    return (side + (1 << size) - 1) >> size


def _read_image(bits: _Bits, pixels: int) -> int:
    """Skip an entropy-coded image; return the largest red and green of a pixel, as 16 bits."""
    cached = 1 << bits.read(4) if bits.read(1) else 0
    if cached > _LARGEST_CACHE:
        raise _Damaged
    green = _read_code(bits, _LITERALS + _LENGTHS + cached)
    red, blue, alpha = (_read_code(bits, _LITERALS) for _ in range(3))
    distance = _read_code(bits, _DISTANCES)
    others = [code for code in (blue, alpha) if code[0]]
    (green_mask, green_table), (red_mask, red_table) = green, red
    highest = 0
    while pixels > 0:
        # One peek for all symbols of a pixel: this loop takes most of the time.
        window = bits.peek()
        symbol, length = green_table[window & green_mask]
        if symbol < _LITERALS:
            value, more = red_table[window >> length & red_mask]
            length += more
            for mask, table in others:
                length += table[window >> length & mask][1]
            if value << 8 | symbol > highest:
                highest = value << 8 | symbol
            bits.skip(length)
            pixels -= 1
        elif symbol < _LITERALS + _LENGTHS:
            bits.skip(length)
            pixels -= _read_number(bits, symbol - _LITERALS)
            _read_number(bits, bits.symbol(distance))
        else:
            bits.skip(length)
            pixels -= 1  # a cached color
    return highest


def _read_number(bits: _Bits, prefix: int) -> int:
    """Return a length or distance (5.2.2)."""
    if prefix < 4:
        return prefix + 1
    extra = (prefix - 2) >> 1
    return ((2 + (prefix & 1)) << extra) + bits.read(extra) + 1


def _read_code(bits: _Bits, alphabet: int) -> _Code:
    """Return a prefix code (6.2.1)."""
    if bits.read(1):  # a simple code
        symbols = bits.read(1) + 1
        lengths = {bits.read(8 if bits.read(1) else 1): symbols - 1}
        if symbols == 2:
            lengths[bits.read(8)] = 1
        return _code(lengths)
    order = _CODE_LENGTH_ORDER[: 4 + bits.read(4)]
    code_lengths = _code({symbol: length for symbol in order if (length := bits.read(3))})
    left = 2 + bits.read(2 + 2 * bits.read(3)) if bits.read(1) else alphabet
    lengths, symbol, previous = {}, 0, 8
    while symbol < alphabet and left:
        left -= 1
        length = bits.symbol(code_lengths)
        if length < 16:
            if length:
                lengths[symbol] = previous = length
            symbol += 1
            continue
        fewest, extra = ((3, 2), (3, 3), (11, 7))[length - 16]
        repeats = fewest + bits.read(extra)
        if symbol + repeats > alphabet:
            raise _Damaged
        if length == 16:
            lengths.update((symbol + more, previous) for more in range(repeats))
        symbol += repeats
    return _code(lengths)


def _code(lengths: dict[int, int]) -> _Code:
    """Return the canonical prefix code of symbols with these lengths."""
    if not lengths:
        raise _Damaged
    if len(lengths) == 1:
        return 0, [(next(iter(lengths)), 0)]
    longest = max(lengths.values())
    if sum(1 << (longest - length) for length in lengths.values()) != 1 << longest:
        raise _Damaged
    table = [(0, 0)] * (1 << longest)
    position = 0
    for length, symbol in sorted((length, symbol) for symbol, length in lengths.items()):
        # The first bit read is the highest of the code, but the lowest of the table's index.
        start = int(f"{position >> (longest - length):0{length}b}"[::-1], 2)
        table[start :: 1 << length] = [(symbol, length)] * (1 << (longest - length))
        position += 1 << (longest - length)
    return (1 << longest) - 1, table
