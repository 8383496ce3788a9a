"""The golden sample: one synthetic picture, and what the model gave for it when exported.

It goes through pre-processing and session whenever a model is loaded, and so catches what
a digest can't: a kernel, a provider or a resize that computes something else here. All that the
graph gives is compared. What a forger writes into both, graph and sample, it can't catch.
"""

from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from visavis_server.arrays import Image, Tensor
from visavis_server.card import GoldenSample, SampledOutput, WholeOutput
from visavis_server.errors import ModelFileError

# Of outputs with more elements, slices are kept instead; classes [1, n] always have each its own.
_MOST_ELEMENTS = 4096
# Longer axes are not cut into slices, nor are those whose slices would hold fewer elements.
_LONGEST_AXIS, _LEAST_IN_SLICE = 1024, 8
# Between CPUs fp32 differs in the sixth digit; a wrong weight or kernel in the first.
_RELATIVE_TOLERANCE = {"fp32": 1e-3, "fp16": 2e-2, "int8": 5e-2}
BF16_TOLERANCE = 5e-2
# A slice may differ by the tolerance of what is largest in it, so that scores below 1 count beside
# boxes of 640 pixels; no slice counts as smaller than this share of the whole output. Between
# kernels of fp32, no slice of ResNet-50, YOLOv5n and YOLOv5nu differs by more than 9e-6 of that.
_LEAST_SHARE = 1e-3
# Elsewhere a step of the quantization is as large in a small slice as in any other.
_EXACT = 1e-3


def picture() -> Image:
    """Return the picture: uint8 RGB [240, 320, 3], two ramps and a textured chessboard."""
    y, x = np.mgrid[0:240, 0:320]
    board = (x // 20 + y // 20) % 2 * 160 + x * y % 96
    return np.stack((x * 255 // 319, y * 255 // 239, board), axis=2).astype(np.uint8)


def sample(names: list[str], outputs: list[Tensor], precision: str) -> GoldenSample:
    """Return the sample to carry: all that each output holds."""
    return GoldenSample(
        outputs=tuple(_whole(n, o) for n, o in zip(names, outputs, strict=True)),
        relative_tolerance=_RELATIVE_TOLERANCE[precision],
    )


def check(
    golden: GoldenSample,
    names: list[str],
    outputs: list[Tensor],
    where: str,
    tolerance: float = 0.0,
) -> None:
    """Raise ModelFileError unless the outputs are those of the sample, within its tolerance.

    tolerance: relative to the largest value, where that allows more than the sample does.
    """
    tolerance = max(tolerance, golden.relative_tolerance)
    by_name = dict(zip(names, outputs, strict=True))
    for expected in golden.outputs:
        output = by_name[expected.tensor]
        if isinstance(expected, WholeOutput) and expected.shape != output.shape:
            raise ModelFileError(
                f"{where}: its golden sample has {list(expected.shape)} in {expected.tensor}, the "
                f"graph gives {list(output.shape)}; export the model again"
            )
        for part in _parts(expected, output, tolerance):
            difference = np.abs(part.got - part.expected)
            allowed = tolerance * np.maximum(part.scale, 1e-6)
            wrong = ~(difference <= allowed)  # NaN is wrong too
            if wrong.any():
                at = int(np.argmax(wrong))
                raise ModelFileError(
                    f"{where}: its golden sample differs by {difference[at]:.3g} in "
                    f"{expected.tensor}, {allowed[at]:.3g} is allowed: this machine does not "
                    "compute what the exporting one did; export the model again, or choose "
                    "another --device"
                )


@dataclass(frozen=True, slots=True)
class _Part:
    """Numbers that are compared: got, expected, and the magnitude that each tolerance is of."""

    got: Tensor
    expected: Tensor
    scale: Tensor


def _parts(expected: SampledOutput | WholeOutput, output: Tensor, tolerance: float) -> list[_Part]:
    if isinstance(expected, SampledOutput):
        values = np.array(expected.values)
        return [_elements(output.ravel()[list(expected.indices)], values)]
    parts = []
    if expected.elements:
        parts.append(_elements(output.ravel(), _unpacked(expected.elements)))
    if expected.slices:
        values = _unpacked(expected.slices).reshape(-1, 3)
        scale = np.abs(values[:, 1:]).max(axis=1)
        share = _LEAST_SHARE if tolerance <= _EXACT else 1.0
        scale = np.repeat(np.maximum(scale, share * scale.max()), 3)
        parts.append(_Part(_slices(output, expected.axes).ravel(), values.ravel(), scale))
    return parts


def _elements(got: Tensor, expected: Tensor) -> _Part:
    scale = np.full(expected.shape, np.abs(expected).max())
    return _Part(got.astype(np.float64), expected, scale)


def _whole(name: str, output: Tensor) -> WholeOutput:
    axes = _axes(output.shape)
    every = not axes or output.size <= _MOST_ELEMENTS
    return WholeOutput(
        tensor=name,
        shape=output.shape,
        elements=_packed(output) if every else "",
        axes=axes,
        slices=_packed(_slices(output, axes)) if axes else "",
    )


def _axes(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the axes along which an output is cut; none where every element is kept."""
    if len(shape) < 3:
        return ()
    axes = tuple(
        axis
        for axis, length in enumerate(shape)
        if 1 < length <= _LONGEST_AXIS and prod(shape) // length >= _LEAST_IN_SLICE
    )
    return axes or ((0,) if prod(shape) > _MOST_ELEMENTS else ())


def _slices(output: Tensor, axes: Sequence[int]) -> Tensor:
    """Return signed sum, smallest and largest of each slice along each axis, [n, 3].

    The sum is over the root of the number of elements: as large as the difference of one of them,
    where all differ independently by as much.
    """
    found = []
    for axis in axes:
        before, length = prod(output.shape[:axis]), output.shape[axis]
        cut = output.astype(np.float32, copy=False).reshape(before, length, -1)
        after = cut.shape[2]
        sums = _signs(before) @ (cut @ _signs(after)) / np.sqrt(np.float32(before * after))
        found.append(np.column_stack((sums, cut.min(axis=(0, 2)), cut.max(axis=(0, 2)))))
    return np.concatenate(found).astype(np.float64)


def _signs(count: int) -> Tensor:
    """Return the first so many of a fixed sequence of 1 and -1, as float32."""
    # The legacy generator: its numbers are the same in every version of NumPy.
    return np.random.RandomState(0).randint(0, 2, count).astype(np.float32) * 2 - 1


def _packed(values: Tensor) -> str:
    return b64encode(np.asarray(values, "<f4").tobytes()).decode("ascii")


def _unpacked(text: str) -> Tensor:
    return np.frombuffer(b64decode(text), "<f4").astype(np.float64)
