"""The cost of decoding a JPEG, estimated from its frame header and its scans."""

import dataclasses
from dataclasses import dataclass
from typing import Final

SEQUENTIAL: Final = frozenset({0xC0, 0xC1, 0xC9})
PROGRESSIVE: Final = frozenset({0xC2, 0xCA})
LOSSLESS: Final = frozenset({0xC3, 0xCB})
ARITHMETIC: Final = frozenset({0xC9, 0xCA, 0xCB})

# Costs in libjpeg-turbo 3.1, in ns: the worst case of `python -m tests.faults.costly` and of
# photographs of 25 MP. A block is 8x8 samples.
_PIXEL_NS, _PIXEL_AS_CMYK_NS = 3.0, 14.0
_BLOCK_NS, _KEPT_BLOCK_NS, _SMOOTHED_BLOCK_NS, _LOSSLESS_SAMPLE_NS = 25.0, 40.0, 160.0, 7.0
_BYTE_NS, _BYTE_IN_PARTS_NS = 20.0, 48.0
_VISIT_NS, _VISIT_DC_NS, _REFINEMENT_NS, _ARITHMETIC_NS = 30.0, 20.0, 60.0, 300.0
_RESTART_NS = 1200.0


@dataclass
class Component:
    """A colour component; blocks: its number of blocks of 8x8 samples."""

    blocks: int
    # Of each of the first coefficients, the number of low bits not read yet; None: all.
    lacking: list[int | None] = dataclasses.field(default_factory=lambda: [None] * 10)


@dataclass
class Frame:
    """A frame header, and the cost of the scans read so far."""

    kind: int
    width: int
    height: int
    components: dict[int, Component]
    mcus: int
    mcu: tuple[int, int]  # height and width in pixels
    cost_ns: float = 0.0
    scan_bytes: int = 0
    scans: int = 0
    in_parts: bool = False  # The coefficients are kept until the last scan.

    @property
    def blocks(self) -> int:
        """The number of blocks of all components."""
        return sum(component.blocks for component in self.components.values())

    def add_scan(self, ids: bytes, band: bytes, restart_mcus: int) -> None:
        """Add the cost of a scan of some components; band: its Ss, Se, Ah and Al."""
        scanned = [self.components[number] for number in ids]
        self.scans += 1
        self.in_parts |= self.kind in PROGRESSIVE or len(ids) < len(self.components)
        first, last, high, low = band[0], band[1], band[2] >> 4, band[2] & 15
        if self.kind in LOSSLESS:
            each_ns = 64 * _LOSSLESS_SAMPLE_NS
        elif self.kind in ARITHMETIC:
            each_ns = _ARITHMETIC_NS
        elif self.kind in SEQUENTIAL:
            each_ns = _VISIT_NS
        elif high and last:
            each_ns = _REFINEMENT_NS
        else:
            each_ns = _VISIT_NS if last else _VISIT_DC_NS
        blocks = sum(component.blocks for component in scanned)
        self.cost_ns += blocks * each_ns
        if restart_mcus:
            # In a scan of one component each block is an MCU.
            mcus = self.mcus if len(scanned) > 1 else blocks
            self.cost_ns += mcus / restart_mcus * _RESTART_NS
        for component in scanned:
            component.lacking[first : last + 1] = [low] * (min(last, 9) + 1 - min(first, 10))

    @property
    def whole_cost_ns(self) -> float:
        """The cost of reading the scans and of computing the pixels, in ns."""
        is_smoothed = self.kind in PROGRESSIVE and any(
            any(component.lacking) or None in component.lacking
            for component in self.components.values()
        )
        block_ns = _BLOCK_NS + self.in_parts * _KEPT_BLOCK_NS + is_smoothed * _SMOOTHED_BLOCK_NS
        pixel_ns = _PIXEL_AS_CMYK_NS if len(self.components) == 4 else _PIXEL_NS
        return (
            self.cost_ns
            + self.scan_bytes * (_BYTE_IN_PARTS_NS if self.in_parts else _BYTE_NS)
            + self.width * self.height * pixel_ns
            + self.blocks * block_ns
        )
