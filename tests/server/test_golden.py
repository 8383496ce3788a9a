"""The golden sample: what is written at export must be found again when loading."""

import numpy as np
import pytest

from server import golden
from server.card import GoldenSample, SampledOutput
from server.errors import ModelFileError


def sample_of(*values: float, tolerance: float = 1e-3) -> GoldenSample:
    output = SampledOutput(tensor="y", indices=tuple(range(len(values))), values=values)
    return GoldenSample(outputs=(output,), relative_tolerance=tolerance)


def outputs(*values: float) -> list[np.ndarray]:
    return [np.array([values], np.float32)]


def test_the_picture_is_always_the_same_and_has_detail_everywhere() -> None:
    picture = golden.picture()
    assert picture.shape == (240, 320, 3)
    assert picture.dtype == np.uint8
    assert picture[0, 0].tolist() == [0, 0, 0]
    # Left to right, top to bottom, and 20-pixel squares that alternate.
    assert picture[0, -1, 0] == picture[-1, 0, 1] == 255
    assert picture[0, 20, 2] == 160
    np.testing.assert_array_equal(picture, golden.picture())


def test_a_sample_holds_at_most_64_elements_and_the_largest() -> None:
    output = np.linspace(-1, 1, 5000, dtype=np.float32).reshape(1, 50, 100)
    output[0, 3, 7] = -9
    (sampled,) = golden.sample(["y"], [output], "fp32").outputs
    assert len(sampled.indices) <= 65
    flat = output.ravel()
    assert dict(zip(sampled.indices, sampled.values, strict=True))[307] == -9
    assert [flat[i] for i in sampled.indices] == pytest.approx(sampled.values)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_sample_of_an_output_fits_that_output(precision: str) -> None:
    output = np.random.default_rng(0).normal(size=(1, 3, 7)).astype(np.float32)
    golden.check(golden.sample(["y"], [output], precision), ["y"], [output], "here")


def test_what_was_computed_almost_alike_passes() -> None:
    golden.check(sample_of(1, 100), ["y"], outputs(1.09, 100), "here")


@pytest.mark.parametrize("wrong", [(1.2, 100), (1, 99), (float("nan"), 100), (1, float("inf"))])
def test_what_was_computed_differently_is_refused(wrong: tuple[float, float]) -> None:
    with pytest.raises(ModelFileError, match=r"here: its golden sample differs by .* in y"):
        golden.check(sample_of(1, 100), ["y"], outputs(*wrong), "here")


def test_an_output_of_zeros_must_stay_zeros() -> None:
    golden.check(sample_of(0, 0), ["y"], outputs(0, 0), "here")
    with pytest.raises(ModelFileError, match="golden sample"):
        golden.check(sample_of(0, 0), ["y"], outputs(0, 1e-3), "here")
