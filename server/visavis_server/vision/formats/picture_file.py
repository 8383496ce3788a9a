"""A picture's file before it is decoded: what it will cost, and what of it a decoder is given."""

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
    """What a file's structure says, read without decoding a pixel.

    width, height: of the picture as it is stored, before it is turned upright.
    working_bytes: the most that decoding holds at once beside the file, the pixels included.
    minimal: returns a file with the same pixels and nothing else in it, for the decoder. May raise
    InvalidRequest.
    check: is given the pixels as the decoder gave them; raises InvalidRequest if the file did not
    have all of them.
    place: left and top of these pixels on a black canvas of width * height, if they don't fill it.
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
    """Raise InvalidRequest on a picture that is too large to decode."""
    if max(width, height) > MAX_SIDE:
        raise InvalidRequest(
            field,
            f"the image is {width}x{height} pixels; the longest side allowed is {MAX_SIDE}",
        )
    if (size := width * height * bytes_per_pixel) > limits.decoded_bytes:
        raise InvalidRequest(
            field,
            f"the image is {width}x{height} pixels, {size} bytes decoded; "
            f"the limit is {limits.decoded_bytes}",
        )


def check_cost(cost_ns: float, reason: str, limits: ImageLimits, field: str) -> None:
    """Raise InvalidRequest on a picture that may take too long to decode.

    cost_ns: CPU at worst, computed from counts: the same file has the same cost on every machine.
    reason: what makes it so, and what to send instead.
    """
    if (cost_ms := 1e-6 * cost_ns) > limits.decode_ms:
        raise InvalidRequest(
            field,
            f"the image may take {cost_ms:.0f} ms to decode; the limit is {limits.decode_ms:g} "
            f"({reason})",
        )
