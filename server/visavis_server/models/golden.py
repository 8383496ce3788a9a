"""The golden sample: one synthetic picture, and the model's outputs for it at export.

The picture goes through pre-processing and session whenever a model is loaded. This detects errors
that a digest can't: a kernel, a provider or a resize that computes something else on this machine.
All outputs of the graph are compared. It does not detect a forgery of both graph and sample.
"""

from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from visavis_server.arrays import Image, Tensor
from visavis_server.card import GoldenSample, SampledOutput, WholeOutput
from visavis_server.errors import ModelFileError

# Larger outputs are summarized by slices; class scores [1, n] always keep every element.
_MOST_ELEMENTS = 4096
# Axes that are longer, or whose slices would hold fewer elements, are not sliced.
_LONGEST_AXIS, _LEAST_IN_SLICE = 1024, 8
# Between CPUs, fp32 differs in the sixth digit; a wrong weight or kernel changes the first.
_RELATIVE_TOLERANCE = {"fp32": 1e-3, "fp16": 2e-2, "int8": 5e-2}
BF16_TOLERANCE = 5e-2
# The tolerance of a slice is relative to its largest magnitude, so that scores below 1 count beside
# boxes of 640 pixels. This share of the output's largest magnitude is the least that is used.
# Between fp32 kernels, no slice of ResNet-50, YOLOv5n and YOLOv5nu differs by more than 9e-6 of it.
_LEAST_SHARE = 1e-3
# Above this tolerance all slices share one scale: a quantization step is the same in all of them.
_EXACT = 1e-3


def picture() -> Image:
    """Return the picture: uint8 RGB [240, 320, 3], two ramps and a textured chessboard."""
    y, x = np.mgrid[0:240, 0:320]
    board = (x // 20 + y // 20) % 2 * 160 + x * y % 96
    return np.stack((x * 255 // 319, y * 255 // 239, board), axis=2).astype(np.uint8)


def sample(names: list[str], outputs: list[Tensor], precision: str) -> GoldenSample:
    """Return the sample for a file: all of each output, or its summary."""
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
    """Raise ModelFileError unless the outputs match the sample, within its tolerance.

    tolerance: relative to the largest value; used if it is larger than the sample's.
    """
    tolerance = max(tolerance, golden.relative_tolerance)
    by_name = dict(zip(names, outputs, strict=True))
    for expected in golden.outputs:
        output = by_name[expected.tensor]
        if isinstance(expected, WholeOutput) and expected.shape != output.shape:
            raise ModelFileError(
                f"{where}: its golden sample has the shape {list(expected.shape)} for "
                f"{expected.tensor}, but the graph returns {list(output.shape)}; export the model "
                "again"
            )
        for part in _parts(expected, output, tolerance):
            difference = np.abs(part.actual - part.expected)
            allowed = tolerance * np.maximum(part.scale, 1e-6)
            exceeded = ~(difference <= allowed)  # so that NaN counts
            if exceeded.any():
                at = int(np.argmax(exceeded))
                raise ModelFileError(
                    f"{where}: its golden sample differs by {difference[at]:.3g} in "
                    f"{expected.tensor}, and the tolerance is {allowed[at]:.3g}: this machine "
                    "computes something else than the exporting machine; export the model again, "
                    "or choose another --device"
                )


@dataclass(frozen=True, slots=True)
class _Part:
    """Numbers to compare; each tolerance is relative to its `scale`."""

    actual: Tensor
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


def _elements(actual: Tensor, expected: Tensor) -> _Part:
    scale = np.full(expected.shape, np.abs(expected).max())
    return _Part(actual.astype(np.float64), expected, scale)


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
    """Return the axes along which an output is sliced; none if every element is kept."""
    if len(shape) < 3:
        return ()
    axes = tuple(
        axis
        for axis, length in enumerate(shape)
        if 1 < length <= _LONGEST_AXIS and prod(shape) // length >= _LEAST_IN_SLICE
    )
    return axes or ((0,) if prod(shape) > _MOST_ELEMENTS else ())


def _slices(output: Tensor, axes: Sequence[int]) -> Tensor:
    """Return the signed sum, minimum and maximum of each slice along each axis, [n, 3].

    The sum is divided by the root of the number of elements: if all elements differ independently
    by as much, it differs as much as one of them.
    """
    slices = []
    for axis in axes:
        before, length = prod(output.shape[:axis]), output.shape[axis]
        sliced = output.astype(np.float32, copy=False).reshape(before, length, -1)
        after = sliced.shape[2]
        sums = _signs(before) @ (sliced @ _signs(after)) / np.sqrt(np.float32(before * after))
        slices.append(np.column_stack((sums, sliced.min(axis=(0, 2)), sliced.max(axis=(0, 2)))))
    return np.concatenate(slices).astype(np.float64)


def _signs(count: int) -> Tensor:
    """Return the first numbers of a fixed sequence of 1 and -1, as float32."""
    # Only the legacy generator gives the same numbers in every version of NumPy.
    return np.random.RandomState(0).randint(0, 2, count).astype(np.float32) * 2 - 1


def _packed(values: Tensor) -> str:
    return b64encode(np.asarray(values, "<f4").tobytes()).decode("ascii")


def _unpacked(text: str) -> Tensor:
    return np.frombuffer(b64decode(text), "<f4").astype(np.float64)
