"""Classification, against Pillow's whole resize, torchvision's formulas and plain NumPy."""

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from server.card import CenterSquare, ClassScores, LabelSet, ModelInput, ShorterSide, Stretch
from server.families import preprocess_one
from server.families.classifier import Classifier, resize_center_square, resize_shorter_side
from server.results import Options

from .. import graphs
from ..pictures import noise

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def whole_resize(image: np.ndarray[Any, Any], size: int, crop: int) -> np.ndarray[Any, Any]:
    """Return torchvision's Resize(size), CenterCrop(crop): the whole picture first, then the crop.

    Written after torchvision.transforms.functional: _compute_resized_output_size, center_crop.
    """
    height, width = image.shape[:2]
    short, long = (width, height) if width <= height else (height, width)
    new_short, new_long = size, int(size * long / short)
    new = (new_short, new_long) if width <= height else (new_long, new_short)
    resized = np.asarray(Image.fromarray(image).resize(new, Image.Resampling.BILINEAR))
    top = round((new[1] - crop) / 2.0)
    left = round((new[0] - crop) / 2.0)
    return resized[top : top + crop, left : left + crop]


def classifier(**changes: Any) -> Classifier:
    return Classifier(graphs.classifier_document(**changes))


@given(st.integers(1, 700), st.integers(1, 700), st.sampled_from([224, 232, 256]))
@example(1, 1, 256)
@example(1, 700, 224)
@example(700, 2, 256)
@example(3, 640, 232)
@example(224, 224, 224)
@example(500, 375, 256)
@example(257, 256, 256)
@example(300, 650, 256)
@example(650, 300, 232)
@example(150, 690, 256)
def test_shorter_side_is_bit_identical_to_resizing_the_whole(
    width: int, height: int, size: int
) -> None:
    image = noise(height, width, 3, seed=width * 1000 + height)
    np.testing.assert_array_equal(
        resize_shorter_side(image, size, 224, 224), whole_resize(image, size, 224)
    )


@pytest.mark.parametrize(
    ("width", "height"), [(4032, 3024), (3024, 4032), (5000, 300), (300, 5000), (2000, 1999)]
)
def test_shorter_side_is_bit_identical_for_large_pictures(width: int, height: int) -> None:
    image = noise(height, width, 3)
    np.testing.assert_array_equal(
        resize_shorter_side(image, 256, 224, 224), whole_resize(image, 256, 224)
    )


@pytest.mark.parametrize(("length", "thickness"), [(3000, 1), (60_000, 2)])
@pytest.mark.parametrize("upright", [False, True])
def test_an_extreme_strip_shows_its_middle(length: int, thickness: int, upright: bool) -> None:
    # Whole, it would become 256 x 256 * length pixels: too many for a reference to resize.
    ramp = np.linspace(0, 255, length).astype(np.uint8)
    image = np.repeat(np.repeat(ramp[None, :, None], thickness, axis=0), 3, axis=2)
    resized = resize_shorter_side(image.swapaxes(0, 1) if upright else image, 256, 224, 224)
    assert resized.shape == (224, 224, 3)
    assert np.abs(resized.astype(int) - ramp[length // 2]).max() <= 1


def test_the_crop_need_not_be_square() -> None:
    image = noise(90, 120, 3)
    resized = np.asarray(Image.fromarray(image).resize((42, 32), Image.Resampling.BILINEAR))
    got = resize_shorter_side(image, 32, 20, 30)
    np.testing.assert_array_equal(got, resized[1:31, 11:31])


@pytest.mark.parametrize(("mean", "std"), [(IMAGENET_MEAN, IMAGENET_STD), ((0.0,) * 3, (1.0,) * 3)])
def test_normalisation_is_bit_identical_to_float32_arithmetic(
    mean: tuple[float, float, float], std: tuple[float, float, float]
) -> None:
    image = noise(16, 16, 3)
    model = classifier(
        input=ModelInput(
            tensor="images", width=16, height=16, resize=ShorterSide(size=16), mean=mean, std=std
        )
    )
    tensor, _ = preprocess_one(model, image)
    # ToTensor divides by 255; Normalize subtracts, then divides: each rounds to float32.
    scaled = image.astype(np.float32) / np.float32(255)
    expected = (scaled - np.array(mean, np.float32)) / np.array(std, np.float32)
    assert tensor.dtype == np.float32
    np.testing.assert_array_equal(tensor, expected.transpose(2, 0, 1)[None])


def test_stretch_ignores_the_aspect_ratio() -> None:
    image = noise(50, 90, 3)
    model = classifier(input=ModelInput(tensor="images", width=20, height=30, resize=Stretch()))
    expected = np.asarray(Image.fromarray(image).resize((20, 30), Image.Resampling.BILINEAR))
    tensor, _ = preprocess_one(model, image)
    np.testing.assert_array_equal(
        tensor[0].transpose(1, 2, 0), expected.astype(np.float32) / np.float32(255)
    )


@pytest.mark.parametrize(
    ("height", "width", "rows", "columns"),
    [
        (6, 10, slice(0, 6), slice(2, 8)),
        (10, 7, slice(1, 8), slice(0, 7)),  # the odd pixel is cut at the far side
        (7, 7, slice(0, 7), slice(0, 7)),
    ],
)
def test_centre_square_takes_the_largest_square(
    height: int, width: int, rows: slice, columns: slice
) -> None:
    image = noise(height, width, 3)
    side = min(height, width)
    np.testing.assert_array_equal(resize_center_square(image, side, side), image[rows, columns])


def test_centre_square_resizes_bilinearly_without_antialiasing() -> None:
    ramp = np.arange(0, 240, 30, dtype=np.uint8)
    image = np.stack((np.tile(ramp, (8, 1)),) * 3, axis=2)
    # Half size, no antialiasing: each new pixel is the mean of the two that it lies between.
    expected = (ramp[0::2].astype(int) + ramp[1::2]) // 2
    got = resize_center_square(image, 4, 4)[0, :, 0].astype(int)
    np.testing.assert_array_equal(got, expected)


def test_centre_square_is_the_rule_of_its_document() -> None:
    image = noise(6, 10, 3)
    model = classifier(input=ModelInput(tensor="images", width=6, height=6, resize=CenterSquare()))
    tensor, _ = preprocess_one(model, image)
    expected = image[:, 2:8].astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(tensor[0].transpose(1, 2, 0), expected)


def test_nothing_is_left_of_what_was_in_the_batch_before() -> None:
    model = classifier(
        input=ModelInput(tensor="images", width=8, height=6, resize=ShorterSide(size=10))
    )
    batch = np.full((3, 3, 6, 8), np.nan, np.float32)
    model.preprocess(noise(30, 20, 3), batch[1])
    assert not np.isnan(batch[1]).any()
    assert np.isnan(batch[[0, 2]]).all()


def test_logits_become_probabilities_highest_first() -> None:
    answer = classifier().postprocess([np.log([[1, 5, 2]]).astype(np.float32)], None, Options())
    assert [c.label for c in answer.classifications] == ["green", "blue", "red"]
    assert [c.class_id for c in answer.classifications] == [1, 2, 0]
    np.testing.assert_allclose([c.score for c in answer.classifications], [5 / 8, 2 / 8, 1 / 8])
    np.testing.assert_allclose(answer.probabilities, [1 / 8, 5 / 8, 2 / 8], rtol=1e-6)


def test_probabilities_are_taken_as_they_are() -> None:
    model = classifier(output=ClassScores(layout="probabilities", tensor="logits"))
    answer = model.postprocess([np.array([[0.2, 0.1, 0.7]], np.float32)], None, Options(top_k=1))
    (best,) = answer.classifications
    assert (best.label, best.score) == ("blue", pytest.approx(0.7))


def test_huge_logits_neither_overflow_nor_exceed_one() -> None:
    logits = np.array([[3e4, -3e4, 2e4]], np.float32)
    answer = classifier().postprocess([logits], None, Options())
    assert [c.score for c in answer.classifications] == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(("top_k", "count"), [(1, 1), (2, 2), (3, 3), (100, 3)])
def test_top_k_is_at_most_the_number_of_labels(top_k: int, count: int) -> None:
    outputs = [np.array([[1, 2, 3]], np.float32)]
    answer = classifier().postprocess(outputs, None, Options(top_k=top_k))
    assert len(answer.classifications) == count


def test_of_equal_scores_the_first_label_comes_first() -> None:
    answer = classifier().postprocess([np.ones((1, 3), np.float32)], None, Options())
    assert [c.class_id for c in answer.classifications] == [0, 1, 2]


def test_half_precision_outputs_are_summed_in_single_precision() -> None:
    labels = LabelSet(name="many", labels=tuple(map(str, range(1000))))
    outputs = [np.zeros((1, 1000), np.float16)]
    answer = classifier(label_set=labels).postprocess(outputs, None, Options(top_k=1))
    assert answer.classifications[0].score == pytest.approx(1e-3, rel=1e-5)
