"""The header of a PNG, and the rows and bytes of its inflated image data."""

from collections.abc import Iterator
from dataclasses import dataclass

from visavis_server.errors import InvalidRequest

# By colour type: the samples of a pixel, and the bit depths allowed.
KINDS = {
    0: (1, (1, 2, 4, 8, 16)),
    2: (3, (8, 16)),
    3: (1, (1, 2, 4, 8)),
    4: (2, (8, 16)),
    6: (4, (8, 16)),
}
# Adam7: the left, top, and steps across and down of each pass.
_PASSES = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)


@dataclass(frozen=True, slots=True)
class Frame:
    """The header of an image (IHDR) or of an animation's frame."""

    width: int
    height: int
    depth: int
    color: int
    is_interlaced: bool

    @property
    def pixel_bits(self) -> int:
        """The bits of one pixel."""
        return self.depth * KINDS[self.color][0]

    @property
    def header(self) -> bytes:
        """The content of IHDR."""
        sizes = self.width.to_bytes(4) + self.height.to_bytes(4)
        return sizes + bytes((self.depth, self.color, 0, 0, self.is_interlaced))

    def passes(self) -> Iterator[tuple[int, int]]:
        """Yield the rows of each pass, and the bytes of a row, its filter byte included."""
        for left, top, across, down in _PASSES if self.is_interlaced else ((0, 0, 1, 1),):
            columns, rows = -(-(self.width - left) // across), -(-(self.height - top) // down)
            if columns > 0 and rows > 0:
                yield rows, 1 + (columns * self.pixel_bits + 7) // 8

    @property
    def raw_bytes(self) -> int:
        """The size of the inflated image data."""
        return sum(rows * row_bytes for rows, row_bytes in self.passes())


def damaged(field: str, why: str) -> InvalidRequest:
    """Return the error for a damaged PNG."""
    return InvalidRequest(field, f"the PNG is damaged: {why}")
