"""Draws answers on pictures: boxes with labels, ranked labels, answers side by side."""

import colorsys
import io
import math
import sys
import unicodedata
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path

from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont, features

from visavis_server.arrays import Image
from visavis_server.vision.results import Classified, Detected

MEDIA_TYPE = "image/jpeg"
_JPEG_QUALITY = 90
# Smaller pictures take more bytes per pixel: shrink by a little more than the ratio.
_SHRINK_MORE = 0.95
# The largest side of a comparison's panel in pixels, and the most panels in a row.
_PANEL = 960
_COLUMNS = 4
# The limit of JPEG is 65,500, far more than can be viewed.
_MAX_SIDE = 16_384
# Covers Latin, Greek, Cyrillic, Georgian, Armenian, Arabic, Hebrew and more. Pillow's font,
# Aileron, looks better but has little beyond ASCII.
_WIDE_FONT = Path(__file__).with_name("fonts") / "DejaVuSans.ttf"
# A code point that no font has a glyph for.
_NO_CHARACTER = "\U0010ffff"
_PAPER, _INK, _BAR = "#16181d", "#f4f5f7", "#4c8dff"


RANDOM_MARK = "RANDOM WEIGHTS"


def annotate(
    image: Image,
    result: Classified | Detected,
    random_weights: bool = False,
    max_bytes: int = sys.maxsize,
) -> bytes:
    """Return a JPEG of the image, uint8 RGB [H, W, 3], with the answer drawn on it.

    random_weights: draws a warning across the top. max_bytes: a larger file is shrunk until it
    fits.
    """
    picture = PillowImage.fromarray(image)
    scale = min(1.0, _MAX_SIDE / max(picture.size))
    if scale < 1:
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(size)
    _draw(picture, result, scale)
    if random_weights:
        font = _font(_font_size(picture))
        draw = ImageDraw.Draw(picture)
        draw.rectangle((0, 0, picture.width, round(font.size * 1.4)), fill="#d32f2f")
        draw.text((4, 2), RANDOM_MARK, "#ffffff", font)
    return _jpeg(picture, max_bytes)


def side_by_side(
    image: Image,
    panels: Sequence[tuple[str, str, Classified | Detected | None]],
    max_bytes: int = sys.maxsize,
) -> bytes:
    """Return a JPEG with one panel per answer: a title, a note below it, and the picture.

    panels: (title, note, answer); without an answer the panel shows the bare picture. max_bytes:
    as for `annotate`.
    """
    scale = min(1.0, _PANEL / max(image.shape[:2]))
    size = (
        max(1, round(image.shape[1] * scale)),
        max(1, round(image.shape[0] * scale)),
    )
    small = PillowImage.fromarray(image).resize(size, PillowImage.Resampling.LANCZOS)
    # Narrow pictures leave room for the text too.
    width, header, margin = max(size[0], 320), 64, 16
    # Keep the sheet about square: two columns for wide pictures, four for others.
    columns = min(len(panels), _COLUMNS if size[1] >= size[0] else _COLUMNS // 2)
    rows = -(-len(panels) // columns)
    sheet = PillowImage.new(
        "RGB",
        (
            columns * (width + margin) + margin,
            rows * (size[1] + header + margin) + margin,
        ),
        _PAPER,
    )
    draw = ImageDraw.Draw(sheet)
    for index, (title, note, result) in enumerate(panels):
        left = margin + index % columns * (width + margin)
        top = margin + index // columns * (size[1] + header + margin)
        large, small_font = _font(24, title), _font(17, note)
        draw.text((left, top), _clip(draw, title, large, width), _INK, large)
        draw.text((left, top + 32), _clip(draw, note, small_font, width), "#a8afbc", small_font)
        panel = PillowImage.new("RGB", (width, size[1]), "#22252c")
        corner = (width - size[0]) // 2
        answered = small.copy()
        if isinstance(result, Detected):
            _draw(answered, result, scale)
        panel.paste(answered, (corner, 0))
        if isinstance(result, Classified):
            _draw(panel, result, scale)
        sheet.paste(panel, (left, top + header))
    return _jpeg(sheet, max_bytes)


def size_of(encoded: bytes) -> tuple[int, int]:
    """Return the width and height of a file from `annotate` or `side_by_side`."""
    with PillowImage.open(io.BytesIO(encoded)) as picture:
        return picture.size


def _draw(picture: PillowImage.Image, result: Classified | Detected, scale: float) -> None:
    if isinstance(result, Detected):
        _draw_boxes(picture, result, scale)
    else:
        _draw_labels(picture, result)


def _draw_boxes(picture: PillowImage.Image, result: Detected, scale: float) -> None:
    """Draw boxes; scale: pixels of the picture per pixel of the original."""
    draw = ImageDraw.Draw(picture)
    line = min(max(2, round(max(picture.size) / 400)), 8)
    size = _font_size(picture)
    # The best box last, so that it lies on top.
    for detection in reversed(result.detections):
        box = detection.box
        corners = (
            box.x_min * scale,
            box.y_min * scale,
            box.x_max * scale,
            box.y_max * scale,
        )
        color = _color(detection.class_id)
        draw.rectangle(corners, outline=color, width=line)
        text = f"{_name(detection.label, detection.class_id)} {detection.score:.2f}"
        font = _font(size, text)
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        height, pad = bottom - top + 2 * line, line * 2
        # Above the box if there is room, else inside it; never beyond the right edge.
        x = max(0.0, min(corners[0], picture.width - (right - left) - 2 * pad))
        y = corners[1] - height if corners[1] >= height else corners[1]
        draw.rectangle((x, y, x + right - left + 2 * pad, y + height), fill=color)
        draw.text((x + pad - left, y + line - top), text, "#000000", font)


def _draw_labels(picture: PillowImage.Image, result: Classified) -> None:
    """Draw the labels as bars, over a darkened strip at the bottom."""
    size = _font_size(picture)
    font, line = _font(size), round(size * 1.5)
    shown = result.classifications[: max(1, picture.height // line)]
    height = line * len(shown) + size // 2
    top = picture.height - height
    shade = PillowImage.new("RGBA", (picture.width, height), (16, 18, 22, 200))
    picture.paste(shade, (0, top), shade)
    draw = ImageDraw.Draw(picture)
    margin = size // 2
    scores = max(draw.textlength(f"{c.score:.1%}", font) for c in shown)
    for rank, label in enumerate(shown):
        y = top + size // 4 + rank * line
        right = picture.width - margin
        bar = max(0.0, right - margin) * min(max(label.score, 0.0), 1.0)
        draw.rectangle((margin, y + line - 5, margin + bar, y + line - 2), fill=_BAR)
        score = f"{label.score:.1%}"
        room = right - margin - scores - size
        name = _name(label.label, label.class_id)
        named = _font(size, name)
        draw.text((margin, y), _clip(draw, name, named, room), _INK, named)
        draw.text((right - draw.textlength(score, font), y), score, _INK, font)


def _clip(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
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


def _font_size(picture: PillowImage.Image) -> int:
    return min(max(12, round(max(picture.size) / 45)), 64)


def _name(label: str, class_id: int) -> str:
    """Return a label on one line, or the class id if the label can't be drawn."""
    text = _one_line(label)
    can_be_drawn = _has_glyphs(text, wide=False) or (
        _has_glyphs(text, wide=True) and (_can_shape() or not _is_shaped(text))
    )
    return text if can_be_drawn else f"class {class_id}"


def _font(size: int, text: str = "") -> ImageFont.FreeTypeFont:
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


def _color(class_id: int) -> tuple[int, int, int]:
    """Return a light colour for a class; neighbours in the label set get distinct ones."""
    hue = class_id * 0.61803 % 1  # the golden ratio spreads them
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.55, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def _jpeg(picture: PillowImage.Image, max_bytes: int) -> bytes:
    """Return the picture as a file, shrunk until the file has at most max_bytes."""
    while True:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=_JPEG_QUALITY)
        encoded = file.getvalue()
        if len(encoded) <= max_bytes or picture.size == (1, 1):
            return encoded
        scale = _SHRINK_MORE * math.sqrt(max_bytes / len(encoded))
        size = (max(1, int(picture.width * scale)), max(1, int(picture.height * scale)))
        picture = picture.resize(size, PillowImage.Resampling.LANCZOS, reducing_gap=3.0)
