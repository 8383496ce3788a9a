"""The EXIF orientation, read as the server does; Pillow differs on damaged blocks and odd types."""

from typing import Final

_HEADER = b"Exif\0\0"
_ORIENTATION: Final = 0x0112
# Bytes per value, by TIFF type number: BYTE, SHORT, LONG.
_INTEGER_BYTES: Final = {1: 1, 3: 2, 4: 4}


def orientation(block: bytes) -> int:
    """Return the orientation in an EXIF block, 1 to 8; 1 if it is missing or damaged."""
    block = block[:0xFFFF].removeprefix(_HEADER)
    if block[:4] not in (b"II*\0", b"MM\0*"):
        return 1

    def number(at: int, size: int) -> int:
        return int.from_bytes(block[at : at + size], "little" if block[0] == 0x49 else "big")

    start = number(4, 4)
    end = start + 2 + 12 * number(start, 2)
    for entry in range(start + 2, min(end, len(block) - 11), 12):
        if number(entry, 2) == _ORIENTATION:
            value = number(entry + 8, _INTEGER_BYTES.get(number(entry + 2, 2), 0))
            return value if 1 <= value <= 8 else 1
    return 1
