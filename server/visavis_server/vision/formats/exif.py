"""The orientation of a picture, the only field read from its EXIF block.

visavis.exif and the web page's orientation.js follow the same rules.
"""

from typing import Final, Literal

UPRIGHT: Final = 1
_ORIENTATION = 0x0112
# TIFF 6.0, section 2: the bytes of a value, by integer type. The standard requires SHORT; BYTE and
# LONG occur, and readers disagree about them.
_INTEGER_BYTES = {1: 1, 3: 2, 4: 4}


def orientation(block: bytes) -> int:
    """Return the orientation in a TIFF block, 1 to 8 as EXIF defines it; 1 if it gives none.

    The first orientation entry in the first directory counts, as BYTE, SHORT or LONG. A damaged
    block, or one that is not TIFF, is ignored. Reads at most 64 KiB, after the prefix "Exif" that
    JPEG and some writers of PNG and WebP add.
    """
    block = bytes(block[:0xFFFF]).removeprefix(b"Exif\0\0")
    order: Literal["little", "big"]
    match block[:4]:
        case b"II*\0":
            order = "little"
        case b"MM\0*":
            order = "big"
        case _:
            return UPRIGHT
    start = int.from_bytes(block[4:8], order)
    entries = start + 2
    end = entries + 12 * int.from_bytes(block[start:entries], order)
    for entry in range(entries, min(end, len(block) - 11), 12):
        if int.from_bytes(block[entry : entry + 2], order) == _ORIENTATION:
            size = _INTEGER_BYTES.get(int.from_bytes(block[entry + 2 : entry + 4], order), 0)
            value = int.from_bytes(block[entry + 8 : entry + 8 + size], order)
            return value if 1 <= value <= 8 else UPRIGHT
    return UPRIGHT
