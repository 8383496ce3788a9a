"""The golden sample: one synthetic picture, and what the model gave for it when exported.

It goes through pre-processing and session whenever a model is loaded, and so catches what
a digest can't: a kernel, a provider or a resize that computes something else here.
"""

import numpy as np

from server.card import GoldenSample, SampledOutput
from server.errors import ModelFileError
from server.results import Image, Tensor

_SAMPLES = 64
# Between CPUs fp32 differs in the sixth digit; a wrong weight or kernel in the first.
_RELATIVE_TOLERANCE = {"fp32": 1e-3, "fp16": 2e-2, "int8": 5e-2}
BF16_TOLERANCE = 5e-2


def picture() -> Image:
    """Return the picture: uint8 RGB [240, 320, 3], two ramps and a textured chessboard."""
    y, x = np.mgrid[0:240, 0:320]
    board = (x // 20 + y // 20) % 2 * 160 + x * y % 96
    return np.stack((x * 255 // 319, y * 255 // 239, board), axis=2).astype(np.uint8)


def sample(names: list[str], outputs: list[Tensor], precision: str) -> GoldenSample:
    """Return the sample to carry: evenly spaced elements of each output, and its largest."""
    return GoldenSample(
        outputs=tuple(_sampled(n, o) for n, o in zip(names, outputs, strict=True)),
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
        got = by_name[expected.tensor].ravel()[list(expected.indices)].astype(np.float64)
        values = np.array(expected.values)
        difference = float(np.max(np.abs(got - values)))
        allowed = tolerance * max(float(np.max(np.abs(values))), 1e-6)
        if not difference <= allowed:  # NaN fails too
            raise ModelFileError(
                f"{where}: its golden sample differs by {difference:.3g} in {expected.tensor}, "
                f"{allowed:.3g} is allowed: this machine does not compute what the exporting one "
                "did; export the model again, or choose another --device"
            )


def _sampled(name: str, output: Tensor) -> SampledOutput:
    flat = output.ravel()
    spaced = np.linspace(0, flat.size - 1, min(_SAMPLES, flat.size)).astype(int)
    indices = np.unique(np.append(spaced, np.argmax(np.abs(flat))))
    return SampledOutput(
        tensor=name,
        indices=tuple(map(int, indices)),
        values=tuple(float(np.float32(value)) for value in flat[indices]),
    )
