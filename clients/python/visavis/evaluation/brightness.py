"""How bright pictures are."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from PIL import Image, ImageStat

from visavis.pillow_pictures import eight_bits

# A sixty-fourth of a picture's pixels has the same mean, and a JPEG is decoded at that size.
_SIDE_PX: Final = 64


def brightness(pictures: Mapping[str, Path]) -> dict[str, float]:
    """Return the mean luma of each picture, from 0 to 255; of those that can be decoded."""
    with ThreadPoolExecutor() as executor:
        values = executor.map(_luma, pictures.values())
        return {
            path: value for path, value in zip(pictures, values, strict=True) if value is not None
        }


def _luma(file: Path) -> float | None:
    try:
        with Image.open(file) as picture:
            picture.draft("L", (_SIDE_PX, _SIDE_PX))
            return float(ImageStat.Stat(eight_bits(picture).convert("L")).mean[0])
    # ultralytics, if it was imported, replaces Pillow's open by one that may miss a package.
    except (OSError, ValueError, SyntaxError, ImportError, Image.DecompressionBombError):
        return None
