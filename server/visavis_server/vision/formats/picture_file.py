"""The description of a picture file before it is decoded: its size, cost and minimal form."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from visavis_server.arrays import Image
from visavis_server.errors import InvalidRequest
from visavis_server.settings import ImageLimits
from visavis_server.vision.formats.exif import UPRIGHT

MAX_SIDE: Final = 65535


@dataclass(frozen=True, slots=True)
class PictureFile:
    """A file's description, read without decoding a pixel.

    width, height: of the picture as stored, before the orientation is applied.
    working_bytes: the peak memory of decoding, including the pixels but not the file.
    minimal: returns a file with the same pixels and nothing else, for the decoder. May raise
    InvalidRequest.
    check: checks the decoded pixels; raises InvalidRequest if the file was incomplete.
    place: the left and top of the pixels on a black canvas of width * height.
    """

    width: int
    height: int
    working_bytes: int
    minimal: Callable[[], memoryview]
    orientation: int = UPRIGHT
    is_cmyk: bool = False
    place: tuple[int, int] = (0, 0)
    check: Callable[[Image], None] = lambda pixels: None


def check_size(
    width: int, height: int, bytes_per_pixel: int, limits: ImageLimits, field: str
) -> None:
    """Raise InvalidRequest if a picture is too large to decode."""
    if max(width, height) > MAX_SIDE:
        raise InvalidRequest(
            field,
            f"the image is {width}x{height} pixels; the limit for a side is {MAX_SIDE}",
        )
    if (size := width * height * bytes_per_pixel) > limits.decoded_bytes:
        raise InvalidRequest(
            field,
            f"the image is {width}x{height} pixels, {size} bytes decoded; "
            f"the limit is {limits.decoded_bytes} bytes",
        )


def check_cost(cost_ns: float, reason: str, limits: ImageLimits, field: str) -> None:
    """Raise InvalidRequest if a picture may take too long to decode.

    cost_ns: the worst-case CPU time, estimated from counts, and so the same on every machine.
    reason: the cause of the cost, and what to send instead.
    """
    if (cost_ms := 1e-6 * cost_ns) > limits.decode_ms:
        raise InvalidRequest(
            field,
            f"the image may take {cost_ms:.0f} ms to decode; the limit is {limits.decode_ms:g} "
            f"({reason})",
        )
