"""Classification, against torchvision's formulas and plain NumPy."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from visavis_server.card import (
    CenterSquare,
    ClassScores,
    LabelSet,
    ModelInput,
    ShorterSide,
    Stretch,
)
from visavis_server.vision.families import preprocess_one
from visavis_server.vision.families.classifier import Classifier, resize_center_square
from visavis_server.vision.results import ClassifyOptions

from ... import graphs
from ...pictures import noise

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def classifier(**changes: Any) -> Classifier:
    return Classifier(graphs.classifier_document(**changes))


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


def test_the_input_is_overwritten_completely() -> None:
    model = classifier(
        input=ModelInput(tensor="images", width=8, height=6, resize=ShorterSide(size=10))
    )
    batch = np.full((3, 3, 6, 8), np.nan, np.float32)
    model.preprocess(noise(30, 20, 3), batch[1])
    assert not np.isnan(batch[1]).any()
    assert np.isnan(batch[[0, 2]]).all()


def test_logits_become_probabilities_highest_first() -> None:
    answer = classifier().postprocess(
        [np.log([[1, 5, 2]]).astype(np.float32)], None, ClassifyOptions()
    )
    assert [c.label for c in answer.classifications] == ["green", "blue", "red"]
    assert [c.class_id for c in answer.classifications] == [1, 2, 0]
    np.testing.assert_allclose([c.score for c in answer.classifications], [5 / 8, 2 / 8, 1 / 8])
    np.testing.assert_allclose(answer.probabilities, [1 / 8, 5 / 8, 2 / 8], rtol=1e-6)


def test_probabilities_are_unchanged() -> None:
    model = classifier(output=ClassScores(layout="probabilities", tensor="logits"))
    answer = model.postprocess(
        [np.array([[0.2, 0.1, 0.7]], np.float32)], None, ClassifyOptions(top_k=1)
    )
    (best,) = answer.classifications
    assert (best.label, best.score) == ("blue", pytest.approx(0.7))


def test_huge_logits_neither_overflow_nor_exceed_one() -> None:
    logits = np.array([[3e4, -3e4, 2e4]], np.float32)
    answer = classifier().postprocess([logits], None, ClassifyOptions())
    assert [c.score for c in answer.classifications] == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(("top_k", "count"), [(1, 1), (2, 2), (3, 3), (100, 3)])
def test_top_k_is_at_most_the_number_of_labels(top_k: int, count: int) -> None:
    outputs = [np.array([[1, 2, 3]], np.float32)]
    answer = classifier().postprocess(outputs, None, ClassifyOptions(top_k=top_k))
    assert len(answer.classifications) == count


def test_of_equal_scores_the_first_label_comes_first() -> None:
    answer = classifier().postprocess([np.ones((1, 3), np.float32)], None, ClassifyOptions())
    assert [c.class_id for c in answer.classifications] == [0, 1, 2]


def test_half_precision_outputs_are_summed_in_single_precision() -> None:
    labels = LabelSet(name="many", labels=tuple(map(str, range(1000))))
    outputs = [np.zeros((1, 1000), np.float16)]
    answer = classifier(label_set=labels).postprocess(outputs, None, ClassifyOptions(top_k=1))
    assert answer.classifications[0].score == pytest.approx(1e-3, rel=1e-5)
