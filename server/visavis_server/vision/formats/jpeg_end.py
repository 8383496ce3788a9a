"""Whether a JPEG's data fills its picture: libjpeg fills what is missing with grey, and is content.

Where a scan's data ends early, libjpeg decodes the rest of it as zeros, which are a middle grey,
and only writes a warning to standard error. A picture may also end in that grey by itself. The
difference shows once more data follows: a decoder that lacked some turns it into pixels, one that
had all of it passes over it.
"""

import hashlib
import io
from typing import Any, Final

import cv2
import numpy as np
from PIL import Image as PillowImage

# Decodes to anything but grey. It begins with a zero, so that a 0xff before it is no marker.
PROBE: Final = b"\0" + hashlib.shake_128(b"more data").digest(511).replace(b"\xff", b"\0")
# Where a scan has restarts, the next one may be due: any of the eight.
PROBE_WITH_RESTARTS: Final = PROBE + b"".join(bytes((0xFF, 0xD0 + n)) + PROBE for n in range(8))
# Of the mean over one MCU. In progressive files the details of later scans are clipped around it:
# of 130 photographs that lacked half of a scan, 99 % were within this, and of whole ones none.
_TOLERANCE: Final = 4.0


def ends_in_grey(pixels: np.ndarray[Any, Any], mcu: tuple[int, int], grey: int) -> bool:
    """Say whether the last MCU of a picture may have had no data; costs microseconds.

    pixels: uint8 [H, W, 3], as they are stored. mcu: height and width of one. grey: what zeros
    are decoded to.
    """
    (height, width), (mcu_height, mcu_width) = pixels.shape[:2], mcu
    # The last one that is there as a whole; of a picture smaller than one, all of it.
    bottom = max(height // mcu_height * mcu_height, mcu_height)
    right = max(width // mcu_width * mcu_width, mcu_width)
    means = cv2.mean(pixels[bottom - mcu_height : bottom, right - mcu_width : right])
    return all(abs(mean - grey) <= _TOLERANCE for mean in means[:3])


def decoded_share(whole: bytes | memoryview, probed: bytes) -> float:
    """Return how much of a picture comes from a JPEG's data, by rows from the top: 1 is all.

    probed: the same file with PROBE after the data of each scan. Decodes both, at an eighth of the
    size. Raises OSError, as Pillow does, where the file is damaged in another way.
    """
    rows = (_reduced(whole) != _reduced(probed)).any(axis=(1, 2))
    return float(rows.argmax() / len(rows)) if rows.any() else 1.0


def _reduced(data: bytes | memoryview) -> np.ndarray[Any, Any]:
    # By Pillow: OpenCV would complain of the probe on standard error.
    with PillowImage.open(io.BytesIO(data), formats=("JPEG",)) as picture:
        picture.draft(None, (max(1, picture.width // 8), max(1, picture.height // 8)))
        return np.atleast_3d(np.asarray(picture))
