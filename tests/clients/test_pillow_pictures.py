"""Pictures as Pillow opens them have the server's pixels."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from visavis.pillow_pictures import upright

from tests.server.pictures import (
    EXIF_BLOCKS,
    block,
    cmyk,
    encoded,
    entry,
    noise,
    smooth,
    with_exif,
)
from visavis_server.settings import ImageLimits
from visavis_server.vision.image import decode

_XMP = (
    b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
    b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)


def text(**chunks: str) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    for key, value in chunks.items():
        info.add_text(key, value, zip=True)
    return info


def opened(data: bytes) -> np.ndarray[Any, Any]:
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(upright(picture))


@pytest.mark.parametrize(
    ("form", "blocks", "turned"),
    [
        *(("JPEG", *each) for each in EXIF_BLOCKS),
        *((form, [block(entry(6, kind=1))], True) for form in ("JPEG", "PNG")),
        ("PNG", [block(entry(6, 4, order=">"), order=">")], True),
    ],
)
def test_every_orientation_is_applied_as_the_server_applies_it(
    form: str, blocks: list[bytes], turned: bool
) -> None:
    data = with_exif(form, *blocks)
    ours = opened(data)
    assert ours.shape == ((20, 10, 3) if turned else (10, 20, 3))
    assert np.array_equal(ours, decode(data, ImageLimits()))


@pytest.mark.parametrize(
    "data",
    [
        encoded(Image.fromarray(smooth(10, 20)), "JPEG", xmp=_XMP.partition(b"\0")[2]),
        encoded(Image.fromarray(smooth(10, 20)), "WEBP", exif=block(entry(6, kind=1))),
        encoded(Image.fromarray(noise(10, 20)), "PNG", pnginfo=text(exif="II*\0")),
        encoded(Image.fromarray(noise(10, 20).astype(np.uint16) * 257), "PNG"),
        encoded(Image.fromarray(noise(10, 20)).convert("1"), "PNG"),
        encoded(Image.fromarray(smooth(10, 20)).quantize(7), "PNG", transparency=1),
        encoded(Image.fromarray(noise(10, 20, 4)), "PNG"),
        cmyk(),
    ],
    ids=["XMP", "WebP", "text named exif", "16-bit grey", "1-bit", "palette", "alpha", "CMYK"],
)
def test_every_kind_has_the_pixels_of_the_server(data: bytes) -> None:
    assert np.array_equal(opened(data), decode(data, ImageLimits()))
