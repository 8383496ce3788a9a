"""The cost of decoding a PNG, estimated from its header."""

from visavis_server.vision.formats.png_frame import Frame

# Costs in OpenCV 5 with libpng 1.6, in ns: the worst case of `python -m tests.faults.costly` and of
# files of 25 MP. A raw byte is inflated, wrapped, unwrapped and unfiltered. The Paeth filter is
# slow if its branches can't be predicted; of the others, Average is the slowest. The costs of raw
# bytes include a fifth for slower processors.
ENCODED_BYTE_NS, INFLATED_BYTE_NS, PAETH_BYTE_NS = 13.0, 2.8, 5.5
_RAW_BYTE_NS = 4.7
_CONVERTED_PIXEL_NS, _INTERLACED_PIXEL_NS = 5.0, 5.0

_RGB, _RGBA = 2, 6


def estimated_cost_ns(frame: Frame, canvas: Frame, encoded_bytes: int) -> float:
    """Return the cost of a frame on its canvas, without that of its filters."""
    cost_ns = encoded_bytes * ENCODED_BYTE_NS
    cost_ns += frame.raw_bytes * (INFLATED_BYTE_NS + _RAW_BYTE_NS)
    pixels = canvas.width * canvas.height
    cost_ns += pixels * (0 if canvas.color in (_RGB, _RGBA) else _CONVERTED_PIXEL_NS)
    cost_ns += pixels * (_INTERLACED_PIXEL_NS if canvas.is_interlaced else 0)
    return cost_ns
