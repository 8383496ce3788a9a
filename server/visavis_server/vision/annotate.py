"""Draws answers on pictures: boxes with labels, ranked labels, answers side by side."""

import colorsys
import io
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageDraw

from visavis_server.arrays import Image
from visavis_server.vision.heat_drawing import draw_heat, draw_legend
from visavis_server.vision.lettering import clip, font_for, font_size, name_of
from visavis_server.vision.results import Classified, Detected, Detection

MEDIA_TYPE = "image/jpeg"
_JPEG_QUALITY = 90
# Smaller pictures take more bytes per pixel: shrink by a little more than the ratio.
_SHRINK_MORE = 0.95
# A photograph takes more bytes: to draw and encode more pixels would be for nothing.
_PIXELS_PER_BYTE = 4
# Pillow's documentation: from 3 on, the result looks like that of the whole picture.
_REDUCING_GAP = 3.0
# The largest side of a comparison's panel in pixels, and the most panels in a row.
_PANEL = 960
_COLUMNS = 4
# The limit of JPEG is 65,500, far more than can be viewed.
_MAX_SIDE = 16_384
_PAPER, _INK, _BAR = "#16181d", "#f4f5f7", "#4c8dff"

RANDOM_MARK = "RANDOM WEIGHTS"
_KINDS_HEIGHT = 26
# Below a heat map, labels take at most this part of the height.
_FEW = 8


@dataclass(frozen=True, slots=True)
class Kind:
    """How a box of one answer, of both, or of the baseline alone is drawn.

    dash: the length of its dashes in widths of the line; 0: solid.
    """

    mark: str
    color: str
    text: str
    dash: int = 0


# The page has the same marks, colours, lines and words: style.css, words.js, section.js.
KINDS: Final = {
    "both": Kind("=", "#56b4e9", "as in {baseline}"),
    "here": Kind("+", "#e69f00", "only here", dash=4),
    "baseline": Kind("−", "#cc79a7", "only in {baseline}", dash=1),
}


@dataclass(frozen=True, slots=True)
class Difference:
    """How a detector's boxes differ from the baseline's.

    matched: for each of its boxes, True if the baseline has it too. missing: the boxes that only
    the baseline has.
    """

    matched: tuple[bool, ...]
    missing: tuple[Detection, ...] = ()


@dataclass(frozen=True, slots=True)
class Panel:
    """One answer in a comparison's drawing: a title, a note below it, and the picture.

    result: None shows the bare picture. difference: draws the boxes in the colours of what they
    share with the baseline's; None: in the colours of their labels.
    """

    title: str
    note: str
    result: Classified | Detected | None
    difference: Difference | None = None


def annotate(
    image: Image,
    result: Classified | Detected,
    random_weights: bool = False,
    max_bytes: int = sys.maxsize,
) -> bytes:
    """Return a JPEG of the image, uint8 RGB [H, W, 3], with the answer drawn on it.

    random_weights: draws a warning across the top. max_bytes: a larger file is shrunk until it
    fits; more than four pixels a byte are not even drawn.
    """
    picture = PillowImage.fromarray(image)
    pixels = picture.width * picture.height
    factor = math.ceil(
        max(1.0, max(picture.size) / _MAX_SIDE, math.sqrt(pixels / _PIXELS_PER_BYTE / max_bytes))
    )
    scale = 1 / factor
    if factor > 1:
        picture = picture.reduce(factor)  # of all ways to shrink, by far the fastest
    if result.heat_map is not None:
        draw_heat(picture, result.heat_map, scale)
    _draw(picture, result, scale)
    text, top = font_size(picture), 0
    if random_weights:
        font = font_for(text)
        draw = ImageDraw.Draw(picture)
        top = round(font.size * 1.4)
        draw.rectangle((0, 0, picture.width, top), fill="#d32f2f")
        draw.text((4, 2), RANDOM_MARK, "#ffffff", font)
    if result.heat_map is not None:
        draw_legend(picture, result.heat_map, top, text)
    return _jpeg(picture, max_bytes)


def side_by_side(
    image: Image,
    panels: Sequence[Panel],
    max_bytes: int = sys.maxsize,
    baseline: str = "",
) -> bytes:
    """Return a JPEG with one panel per answer.

    max_bytes: as for `annotate`. baseline: the model that differences are from; adds a legend.
    """
    scale = min(1.0, _PANEL / max(image.shape[:2]))
    size = (
        max(1, round(image.shape[1] * scale)),
        max(1, round(image.shape[0] * scale)),
    )
    small = PillowImage.fromarray(image).resize(
        size, PillowImage.Resampling.LANCZOS, reducing_gap=_REDUCING_GAP
    )
    # Narrow pictures leave room for the text too.
    width, header, margin = max(size[0], 320), 64, 16
    # Keep the sheet about square: two columns for wide pictures, four for others.
    columns = min(len(panels), _COLUMNS if size[1] >= size[0] else _COLUMNS // 2)
    rows = -(-len(panels) // columns)
    legend = _KINDS_HEIGHT * len(KINDS) if baseline else 0
    sheet = PillowImage.new(
        "RGB",
        (
            columns * (width + margin) + margin,
            rows * (size[1] + header + margin) + margin + legend,
        ),
        _PAPER,
    )
    draw = ImageDraw.Draw(sheet)
    if baseline:
        _draw_kinds(draw, baseline, margin, sheet.width - 2 * margin)
    for index, panel in enumerate(panels):
        left = margin + index % columns * (width + margin)
        top = margin + legend + index // columns * (size[1] + header + margin)
        large, small_font = font_for(24, panel.title), font_for(17, panel.note)
        draw.text((left, top), clip(draw, panel.title, large, width), _INK, large)
        note = clip(draw, panel.note, small_font, width)
        draw.text((left, top + 32), note, "#a8afbc", small_font)
        sheet.paste(_drawn(small, panel, width, scale), (left, top + header))
    return _jpeg(sheet, max_bytes)


def _drawn(small: PillowImage.Image, panel: Panel, width: int, scale: float) -> PillowImage.Image:
    """Return the picture of a panel, centred in a wider one."""
    result, answered = panel.result, small.copy()
    heat_map = result.heat_map if result else None
    if heat_map is not None:
        draw_heat(answered, heat_map, scale)
    if isinstance(result, Detected) and panel.difference is not None:
        _draw_difference(answered, result, panel.difference, scale)
    elif isinstance(result, Detected):
        _draw(answered, result, scale)
    drawn = PillowImage.new("RGB", (width, small.height), "#22252c")
    drawn.paste(answered, ((width - small.width) // 2, 0))
    if isinstance(result, Classified):
        _draw(drawn, result, scale)
    if heat_map is not None:
        draw_legend(drawn, heat_map, 0, font_size(drawn))
    return drawn


def size_of(encoded: bytes) -> tuple[int, int]:
    """Return the width and height of a file from `annotate` or `side_by_side`."""
    with PillowImage.open(io.BytesIO(encoded)) as picture:
        return picture.size


def _draw(picture: PillowImage.Image, result: Classified | Detected, scale: float) -> None:
    if isinstance(result, Detected):
        # The best box last, so that it lies on top.
        for detection in reversed(result.detections):
            _draw_box(picture, detection, scale, _color(detection.class_id))
    else:
        _draw_labels(picture, result)


def _draw_difference(
    picture: PillowImage.Image, result: Detected, difference: Difference, scale: float
) -> None:
    for detection in reversed(difference.missing):
        _draw_box(picture, detection, scale, KINDS["baseline"].color, KINDS["baseline"])
    found = list(zip(result.detections, difference.matched, strict=True))
    for detection, matched in reversed(found):
        kind = KINDS["both" if matched else "here"]
        _draw_box(picture, detection, scale, kind.color, kind)


def _draw_box(
    picture: PillowImage.Image,
    detection: Detection,
    scale: float,
    color: str | tuple[int, int, int],
    kind: Kind | None = None,
) -> None:
    """Draw a box with its label; scale: pixels of the picture per pixel of the original."""
    draw = ImageDraw.Draw(picture)
    line = min(max(2, round(max(picture.size) / 400)), 8)
    box = detection.box
    corners = (box.x_min * scale, box.y_min * scale, box.x_max * scale, box.y_max * scale)
    if kind is not None and kind.dash:
        _draw_dashes(picture, corners, color, line, kind.dash * line)
    else:
        draw.rectangle(corners, outline=color, width=line)
    text = f"{name_of(detection.label, detection.class_id)} {detection.score:.2f}"
    if kind is not None:
        text = f"{kind.mark} {text}"
    font = font_for(font_size(picture), text)
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    height, pad = bottom - top + 2 * line, line * 2
    # Above the box if there is room, else inside it; never beyond the right edge.
    x = max(0.0, min(corners[0], picture.width - (right - left) - 2 * pad))
    y = corners[1] - height if corners[1] >= height else corners[1]
    draw.rectangle((x, y, x + right - left + 2 * pad, y + height), fill=color)
    draw.text((x + pad - left, y + line - top), text, "#000000", font)


def _draw_dashes(
    picture: PillowImage.Image,
    corners: tuple[float, float, float, float],
    color: str | tuple[int, int, int],
    line: int,
    dash: int,
) -> None:
    """Draw a rectangle of dashes; line: its width, dash: their length, both in pixels."""
    left, top, right, bottom = map(round, corners)
    for start, length, turned in ((top, bottom - top + 1, True), (left, right - left + 1, False)):
        stripes = np.where(np.arange(max(length, 1)) // dash % 2, 0, 255).astype(np.uint8)
        band = stripes[None].repeat(line, axis=0)
        mask = PillowImage.fromarray(band.T.copy() if turned else band)
        # Both edges that run in this direction: left and right, or top and bottom.
        for at in (left, right - line + 1) if turned else (top, bottom - line + 1):
            x, y = (at, start) if turned else (start, at)
            picture.paste(color, (x, y, x + mask.width, y + mask.height), mask)


def _draw_kinds(draw: ImageDraw.ImageDraw, baseline: str, margin: int, width: int) -> None:
    """Draw the legend of a difference, a line for each kind of box."""
    for index, kind in enumerate(KINDS.values()):
        top = margin // 2 + index * _KINDS_HEIGHT
        draw.rectangle((margin, top + 3, margin + 22, top + 19), fill=kind.color)
        draw.text((margin + 7, top), kind.mark, "#000000", font_for(18, kind.mark))
        text = kind.text.format(baseline=baseline)
        font = font_for(18, text)
        draw.text((margin + 32, top), clip(draw, text, font, width - 32), _INK, font)


def _draw_labels(picture: PillowImage.Image, result: Classified) -> None:
    """Draw the labels as bars, over a darkened strip at the bottom."""
    size = font_size(picture)
    font, line = font_for(size), round(size * 1.5)
    # A heat map should be seen: labels may hide little of it.
    most = picture.height if result.heat_map is None else picture.height // _FEW
    shown = result.classifications[: max(1, most // line)]
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
        name = name_of(label.label, label.class_id)
        named = font_for(size, name)
        draw.text((margin, y), clip(draw, name, named, room), _INK, named)
        draw.text((right - draw.textlength(score, font), y), score, _INK, font)


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
        picture = picture.resize(size, PillowImage.Resampling.LANCZOS, reducing_gap=_REDUCING_GAP)
