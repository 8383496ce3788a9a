"""Draws heat maps: a colour map over the picture, blended, and a legend with the scale."""

import math

import cv2
import numpy as np
from PIL import Image as PillowImage
from PIL import ImageDraw

from visavis_server.arrays import Tensor
from visavis_server.vision.heat_maps import HeatMap
from visavis_server.vision.lettering import clip, font_for, name_of

# Perceptually uniform: equal steps look equal. Its dark end dims what speaks for nothing. RGB.
_COLORS = np.ascontiguousarray(
    cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_INFERNO)[:, 0, ::-1]
)
_OPACITY = 0.55
_PAPER, _INK = (16, 18, 22, 225), "#f4f5f7"
# Rows drawn at a time: large pictures would take much memory at once.
_ROWS = 128


def draw_heat(picture: PillowImage.Image, heat_map: HeatMap, scale: float) -> None:
    """Blend a heat map over the area of the picture that it covers, and outline the area.

    scale: pixels of the picture per pixel of the original. Values between the centres of cells are
    interpolated, and colours range from the smallest value to the largest.
    """
    area = heat_map.area
    xs, x_weights = _weights(
        area.x_min * scale, area.x_max * scale, heat_map.values.shape[1], picture.width
    )
    ys, y_weights = _weights(
        area.y_min * scale, area.y_max * scale, heat_map.values.shape[0], picture.height
    )
    if not (xs and ys):
        return
    low, high = float(heat_map.values.min()), float(heat_map.values.max())
    levels = (heat_map.values - np.float32(low)) / np.float32(max(high - low, 1e-12)) * 255
    columns = levels @ x_weights.T  # [rows of cells, pixels]
    for start in range(0, len(ys), _ROWS):
        rows = ys[start : start + _ROWS]
        colors = _COLORS[np.rint(y_weights[start : start + _ROWS] @ columns).astype(np.uint8)]
        box = (xs.start, rows.start, xs.stop, rows.stop)
        under = np.asarray(picture.crop(box))
        blended = cv2.addWeighted(under, 1 - _OPACITY, colors, _OPACITY, 0)
        picture.paste(PillowImage.fromarray(blended), box)
    if (len(xs), len(ys)) != picture.size:
        corners = (xs.start, ys.start, xs.stop - 1, ys.stop - 1)
        ImageDraw.Draw(picture).rectangle(corners, outline=_INK)


def draw_legend(picture: PillowImage.Image, heat_map: HeatMap, top: int, size: int) -> None:
    """Draw the class and the scale of a heat map at the top left; size: of the text in pixels."""
    draw = ImageDraw.Draw(picture)
    name = name_of(heat_map.label, heat_map.class_id)
    font, numbers = font_for(size, name), font_for(size)
    pad, bar = size // 2, size * 6
    texts = scale_of(heat_map)
    widths = [round(draw.textlength(text, numbers)) for text in texts]
    room = picture.width - sum(widths) - bar - 5 * pad
    name = clip(draw, name, font, max(room, 0))
    left = pad + round(draw.textlength(name, font)) + pad
    width = min(left + widths[0] + bar + widths[1] + 3 * pad, picture.width)
    shade = PillowImage.new("RGBA", (width, round(size * 1.5)), _PAPER)
    picture.paste(shade, (0, top), shade)
    draw.text((pad, top + size // 6), name, _INK, font)
    draw.text((left, top + size // 6), texts[0], _INK, numbers)
    left += widths[0] + pad
    ramp = PillowImage.fromarray(_COLORS[None].repeat(max(size - 2, 1), axis=0))
    picture.paste(ramp.resize((bar, max(size - 2, 1))), (left, top + size // 3))
    draw.text((left + bar + pad, top + size // 6), texts[1], _INK, numbers)


def scale_of(heat_map: HeatMap) -> tuple[str, str]:
    """Return the smallest and the largest value with as many decimals as the larger one needs."""
    low, high = float(heat_map.values.min()), float(heat_map.values.max())
    largest = max(abs(low), abs(high), 1e-9)
    decimals = 2 - math.floor(math.log10(largest))
    return f"{round(low, decimals) + 0:g}", f"{round(high, decimals) + 0:g}"


def _weights(start: float, end: float, cells: int, size: int) -> tuple[range, Tensor]:
    """Return the pixels of an axis that an area covers, and the weight of each cell for each.

    start, end: the area's edges in pixels. size: of the axis. Weights [pixels, cells] interpolate
    linearly between the centres of cells.
    """
    pixels = range(max(0, math.floor(start)), min(size, math.ceil(end)))
    center = np.arange(pixels.start, pixels.stop, dtype=np.float32) + 0.5
    cell = (center - start) / max(end - start, 1e-6) * cells - 0.5
    cell = np.clip(cell, 0, cells - 1)
    distance = np.abs(cell[:, None] - np.arange(cells, dtype=np.float32))
    return pixels, np.maximum(1 - distance, 0).astype(np.float32)
