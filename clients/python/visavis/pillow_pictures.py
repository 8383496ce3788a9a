"""Pictures that Pillow has opened, as the server sees them. Only extras bring Pillow."""

from typing import Final

from PIL import Image

from visavis.exif import orientation

_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_QUARTERS: Final = tuple(turn for value, turn in _TURNS.items() if value >= 5)
# Of bits, to the 8 that the server keeps.
_HIGH_BYTE: Final = 1 / 256


def upright(picture: Image.Image) -> Image.Image:
    """Return an opened picture as upright RGB, with the server's rules for its orientation.

    Pillow's `exif_transpose` also honours XMP, and ignores an orientation of type BYTE.
    """
    rgb = eight_bits(picture).convert("RGB")
    turn = _turn(picture)  # after the conversion: a PNG may have its EXIF block after the pixels
    return rgb if turn is None else rgb.transpose(turn)


def upright_size(picture: Image.Image) -> tuple[int, int]:
    """Return the width and height of an opened picture once it is upright; decodes no pixels."""
    width, height = picture.size
    return (height, width) if _turn(picture) in _QUARTERS else (width, height)


def _turn(picture: Image.Image) -> Image.Transpose | None:
    block = picture.info.get("exif")
    if not isinstance(block, bytes):  # a text may have that name too
        return None
    return _TURNS.get(orientation(block.removeprefix(b"Exif\0\0")))  # Pillow may add the prefix


def eight_bits(picture: Image.Image) -> Image.Image:
    """Return a picture of 16-bit grey cut to its high byte; Pillow clips it to white."""
    picture.load()
    if not picture.mode.startswith("I"):
        return picture
    return picture.convert("I").point(lambda value: value * _HIGH_BYTE).convert("L")
