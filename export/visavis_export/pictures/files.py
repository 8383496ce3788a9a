"""Reads picture files and decodes them as the server does."""

import math
from pathlib import Path

from visavis.dataset import chosen_pictures
from visavis.errors import InvalidData

from visavis_export.errors import ExportError
from visavis_server.arrays import Image
from visavis_server.errors import InvalidRequest
from visavis_server.settings import ImageLimits
from visavis_server.vision.image import decode

# The user's own pictures may have any size: the server's limits guard against untrusted clients.
LIMITS = ImageLimits(encoded_bytes=1 << 30, decoded_bytes=1 << 31, decode_ms=math.inf)


def read_pictures(paths: list[Path]) -> dict[str, bytes]:
    """Return the encoded pictures in files and folders, by file name.

    Raises ExportError if a path does not exist or a folder holds no picture.
    """
    pictures: dict[str, bytes] = {}
    for path in paths:
        if not path.exists():
            raise ExportError(f"the picture {path} does not exist")
        try:
            files = chosen_pictures([path])
        except InvalidData as error:
            raise ExportError(str(error)) from None
        for file in files:
            name, number = file.name, 1
            while name in pictures:
                number += 1
                name = f"{file.stem} {number}{file.suffix}"
            pictures[name] = file.read_bytes()
    return pictures


def read_image(name: str, encoded: bytes) -> Image:
    """Return a picture as the server decodes it: uint8 RGB [H, W, 3].

    Raises ExportError, naming the picture, if it cannot be decoded.
    """
    try:
        return decode(encoded, LIMITS)
    except InvalidRequest as error:
        raise ExportError(f"the picture {name!r}: {error}") from None
