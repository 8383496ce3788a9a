"""The golden sample: what is written at export must be found again when loading."""

import base64

import numpy as np
import pytest

from visavis_server.card import GoldenSample, SampledOutput, WholeOutput
from visavis_server.errors import ModelFileError
from visavis_server.models import golden


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


def numbers(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4")


def test_of_classes_every_element_is_kept() -> None:
    output = np.random.default_rng(0).normal(size=(1, 5000)).astype(np.float32)
    (whole,) = golden.sample(["y"], [output], "fp32").outputs
    assert isinstance(whole, WholeOutput)
    assert (whole.shape, whole.axes) == ((1, 5000), ())
    np.testing.assert_array_equal(numbers(whole.elements), output[0])


def test_of_a_large_output_the_extremes_of_each_slice_are_kept() -> None:
    output = np.random.default_rng(0).normal(size=(1, 84, 8400)).astype(np.float32)
    (whole,) = golden.sample(["y"], [output], "fp32").outputs
    assert isinstance(whole, WholeOutput)
    assert (whole.axes, whole.elements) == ((1,), "")
    _, smallest, largest = numbers(whole.slices).reshape(84, 3).T
    np.testing.assert_array_equal(smallest, np.sort(output[0])[:, 0])
    np.testing.assert_array_equal(largest, np.sort(output[0])[:, -1])


@pytest.mark.parametrize("shape", [(1, 1000), (1, 84, 8400), (1, 25200, 85), (1, 3, 80, 80)])
@pytest.mark.parametrize("damage", ["one element", "not a number", "one row halved"])
def test_damage_anywhere_is_noticed(shape: tuple[int, ...], damage: str) -> None:
    random = np.random.default_rng(0)
    output = random.normal(size=shape).astype(np.float32)
    sample = golden.sample(["y"], [output], "fp32")
    for _ in range(20):
        other = output.copy()
        at = tuple(int(random.integers(side)) for side in shape)
        if damage == "one element":
            other[at] += 5 * random.choice([-1, 1])
        elif damage == "not a number":
            other[at] = np.nan
        else:
            other[at[:2]] /= 2
        with pytest.raises(ModelFileError, match=r"its golden sample differs by .* in y"):
            golden.check(sample, ["y"], [other], "here")


def test_scores_count_beside_boxes_of_hundreds_of_pixels() -> None:
    """As ultralytics' rows have them: what is small beside the largest number is compared too."""
    rows = np.random.default_rng(0).random((1, 84, 8400), np.float32)
    rows[:, :4] *= 640
    sample = golden.sample(["y"], [rows], "fp32")
    other = rows.copy()
    other[:, 50] *= 0.9
    with pytest.raises(ModelFileError, match="golden sample"):
        golden.check(sample, ["y"], [other], "here")


def test_another_shape_is_refused() -> None:
    sample = golden.sample(["y"], [np.ones((1, 3, 40, 40), np.float32)], "fp32")
    with pytest.raises(
        ModelFileError, match=r"shape \[1, 3, 40, 40\] for y, but the graph returns \[1"
    ):
        golden.check(sample, ["y"], [np.ones((1, 3, 40, 41), np.float32)], "here")


@pytest.mark.parametrize("shape", [(1, 1000), (1, 84, 8400), (1, 80, 80, 64)])
def test_rounding_differences_of_other_machines_pass(shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    output = random.normal(size=shape).astype(np.float32)
    other = output + random.normal(size=shape).astype(np.float32) * 1e-5
    golden.check(golden.sample(["y"], [output], "fp32"), ["y"], [other], "here")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_sample_of_an_output_fits_that_output(precision: str) -> None:
    output = np.random.default_rng(0).normal(size=(1, 3, 7)).astype(np.float32)
    golden.check(golden.sample(["y"], [output], precision), ["y"], [output], "here")


def test_outputs_within_the_tolerance_pass() -> None:
    golden.check(sample_of(1, 100), ["y"], outputs(1.09, 100), "here")


@pytest.mark.parametrize("wrong", [(1.2, 100), (1, 99), (float("nan"), 100), (1, float("inf"))])
def test_outputs_beyond_the_tolerance_are_refused(wrong: tuple[float, float]) -> None:
    with pytest.raises(ModelFileError, match=r"here: its golden sample differs by .* in y"):
        golden.check(sample_of(1, 100), ["y"], outputs(*wrong), "here")


def test_an_output_of_zeros_must_stay_zeros() -> None:
    golden.check(sample_of(0, 0), ["y"], outputs(0, 0), "here")
    with pytest.raises(ModelFileError, match="golden sample"):
        golden.check(sample_of(0, 0), ["y"], outputs(0, 1e-3), "here")
