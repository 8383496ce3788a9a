"""The limits that a stranger's input must meet, as the code that reads it takes them."""

import sys
from dataclasses import dataclass
from typing import Final

from visavis_server.runtime.budget import Budget

_UNLIMITED: Final = Budget(sys.maxsize)


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """The limits that an image must meet before it is decoded.

    encoded_bytes: of the file. decoded_bytes: width * height * channels * bytes per sample, by the
    file's header. jpeg_scans: of a progressive JPEG. decode_ms: worst-case CPU time to decode,
    computed from counts in the file's structure. budget: the memory budget for pixels; unlimited
    by default.
    """

    encoded_bytes: int = 16 << 20
    decoded_bytes: int = 150_000_000
    jpeg_scans: int = 100
    decode_ms: float = 600.0
    budget: Budget = _UNLIMITED


@dataclass(frozen=True, slots=True)
class MessageLimits:
    """The limits that a message must meet before it is parsed.

    fields: at all levels, with elements of lists and entries of maps. text_bytes: of all strings
    together.
    """

    fields: int = 4096
    text_bytes: int = 1 << 20
