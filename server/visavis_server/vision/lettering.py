"""Text on pictures: fonts that have its characters, on one line, cut to the room there is."""

import unicodedata
from functools import cache, lru_cache
from pathlib import Path

from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont, features

# Covers Latin, Greek, Cyrillic, Georgian, Armenian, Arabic, Hebrew and more. Pillow's font,
# Aileron, looks better but has little beyond ASCII.
_WIDE_FONT = Path(__file__).with_name("fonts") / "DejaVuSans.ttf"
# A code point that no font has a glyph for.
_NO_CHARACTER = "\U0010ffff"


def clip(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """Return the text on one line, cut with an ellipsis where it is wider than `width` pixels."""
    text = _one_line(text)
    if draw.textlength(text, font) <= width:
        return text
    while text and draw.textlength(text + "…", font) > width:
        text = text[:-1]
    return text + "…"


def _one_line(text: str) -> str:
    """Return a text from a model file on one line, cut to a bounded length."""
    return " ".join(text.split())[:120]


def font_size(picture: PillowImage.Image) -> int:
    """Return the size of text that suits a picture, in pixels."""
    return min(max(12, round(max(picture.size) / 45)), 64)


def name_of(label: str, class_id: int) -> str:
    """Return a label on one line, or the class id if the label can't be drawn."""
    text = _one_line(label)
    can_be_drawn = _has_glyphs(text, wide=False) or (
        _has_glyphs(text, wide=True) and (_can_shape() or not _is_shaped(text))
    )
    return text if can_be_drawn else f"class {class_id}"


def font_for(size: int, text: str = "") -> ImageFont.FreeTypeFont:
    """Return the font for a text."""
    if not _has_glyphs(text, wide=False):
        return ImageFont.truetype(_WIDE_FONT, size)
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def _has_glyphs(text: str, *, wide: bool) -> bool:
    return text.isascii() or all(_has_glyph(character, wide) for character in text)


@lru_cache(maxsize=4096)
def _has_glyph(character: str, wide: bool) -> bool:
    font = ImageFont.truetype(_WIDE_FONT, 16) if wide else ImageFont.load_default(16)
    drawn, missing = (font.getmask(each) for each in (character, _NO_CHARACTER))
    return drawn.size != missing.size or bytes(drawn) != bytes(missing)


def _is_shaped(text: str) -> bool:
    """Return True if a text must not be drawn character by character, from left to right."""
    return any(unicodedata.bidirectional(character) in ("R", "AL") for character in text)


@cache
def _can_shape() -> bool:
    return bool(features.check("raqm"))
