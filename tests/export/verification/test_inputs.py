"""A tensor that other code made is explained; the original's own tensor is not complained about."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torchvision
from PIL import Image as PillowImage

from visavis_export.families.original import upright
from visavis_export.families.yolov5 import letterboxed
from visavis_export.verification.inputs import explain
from visavis_export.verification.originals import Original
from visavis_export.verification.outcome import Stage
from visavis_export.verification.pipelines import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Geometry,
    Pipeline,
    Values,
)
from visavis_server.card import Task

from .conftest import PICTURES, Exported

pytestmark = pytest.mark.filterwarnings("ignore")
ENCODED = PICTURES["synthetic wide"]
PICTURE = np.asarray(upright(ENCODED))
MEAN, STD = (np.array(one, np.float32).reshape(3, 1, 1) for one in (IMAGENET_MEAN, IMAGENET_STD))


def planes(pixels: np.ndarray) -> np.ndarray:
    """Return pixels [H, W, 3] as ultralytics' predictor makes them: float32 [3, H, W] in [0, 1]."""
    return pixels.transpose(2, 0, 1).astype(np.float32) / 255


def of(geometry: Geometry, values: Values) -> Original:
    def never(_: Any) -> Any:
        raise AssertionError

    pipeline = Pipeline(geometry, values)
    return Original("a test", Task.CLASSIFICATION, ("a", "b"), pipeline, "logits", never, never)


DETECTOR = of(Geometry("letterbox", 320, 320), Values())
RESNET = of(
    Geometry("shorter side", 224, 224, filter="Pillow bilinear", shorter_side=256),
    Values(mean=IMAGENET_MEAN, std=IMAGENET_STD, normalised=1),
)


def mistakes(
    tensor: np.ndarray, original: Original = DETECTOR, encoded: bytes = ENCODED
) -> list[str]:
    return [one.mistake for one in explain(tensor, original, encoded)]


def padded(pad: int, left: int, top: int) -> np.ndarray:
    """Return the picture, scaled to 320 x 80, at a place in a square."""
    out = np.full((320, 320, 3), pad, np.uint8)
    small = cv2.resize(PICTURE, (320, 80), interpolation=cv2.INTER_LINEAR)
    out[top : top + 80, left : left + 320] = small
    return out


def opencv_example() -> np.ndarray:
    """Return the input of ultralytics' example for OpenCV: a square padded with black first."""
    side = max(PICTURE.shape[:2])
    square = np.zeros((side, side, 3), np.uint8)
    square[: PICTURE.shape[0], : PICTURE.shape[1]] = PICTURE
    return cv2.dnn.blobFromImage(square[..., ::-1], 1 / 255, (320, 320), swapRB=True)[0]


def test_the_original_pipelines_are_those_of_the_families() -> None:
    for encoded in PICTURES.values():
        picture = np.asarray(upright(encoded))
        pixels = DETECTOR.pipeline.geometry.pixels(encoded)
        assert np.array_equal(pixels, letterboxed(picture, 320))
        transform = torchvision.transforms._presets.ImageClassification(crop_size=224)
        expected = transform(upright(encoded)).numpy()
        assert np.abs(RESNET.pipeline.tensor(encoded) - expected).max() < 1e-6


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (planes(letterboxed(PICTURE, 320)), []),
        (planes(letterboxed(PICTURE, 320)).astype(np.float16).astype(np.float32), []),
        (planes(letterboxed(PICTURE, 320)) * 255, ["not divided"]),
        (planes(letterboxed(PICTURE, 320)) / 255, ["divided twice"]),
        ((planes(letterboxed(PICTURE, 320)) - MEAN) / STD, ["mean and std added"]),
        (planes(letterboxed(PICTURE, 320)[..., ::-1]), ["BGR"]),
        (planes(letterboxed(PICTURE, 320)[..., ::-1]) * 255, ["BGR", "not divided"]),
        (planes(cv2.resize(PICTURE, (320, 320))), ["stretched"]),
        (planes(padded(0, 0, 120)), ["pad"]),
        (planes(padded(114, 0, 0)), ["corner"]),
        (planes(padded(0, 0, 0)[..., ::-1]), ["pad", "corner", "BGR"]),
        (opencv_example(), ["pad", "corner"]),
        (planes(letterboxed(PICTURE, 640)), ["size"]),
        (planes(cv2.resize(PICTURE, (320, 80)))[:, :64], ["rectangle", "unknown input"]),
        (planes(letterboxed(PICTURE, 320)[::-1]), ["unknown input"]),
    ],
)
def test_what_is_wrong_with_a_detectors_tensor_is_named(
    tensor: np.ndarray, expected: list[str]
) -> None:
    assert mistakes(tensor) == expected


def test_a_rectangle_is_called_rectangular_inference() -> None:
    from ultralytics.data.augment import LetterBox

    rectangle = LetterBox((320, 320), auto=True, stride=32)(image=PICTURE)
    assert rectangle.shape == (96, 320, 3)
    assert mistakes(planes(rectangle)) == ["rectangle"]


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (lambda p: p.resize((224, 224), PillowImage.Resampling.BILINEAR), ["stretched"]),
        (lambda p: cv2.resize(np.asarray(p), (224, 224)), ["stretched", "filter"]),
        (
            lambda p: torchvision.transforms.functional.center_crop(
                torchvision.transforms.functional.resize(p, 232), [224, 224]
            ),
            ["shorter side"],
        ),
        (
            lambda p: torchvision.transforms.functional.center_crop(
                p.resize((1024, 256), PillowImage.Resampling.BICUBIC), [224, 224]
            ),
            ["filter"],
        ),
        (lambda p: letterboxed(np.asarray(p), 224), ["letterboxed"]),
    ],
)
def test_what_is_wrong_with_a_classifiers_tensor_is_named(pixels: Any, expected: list[str]) -> None:
    made = planes(np.asarray(pixels(upright(ENCODED))))
    assert mistakes((made - MEAN) / STD, RESNET) == expected
    assert mistakes(made, RESNET) == [*expected, "mean and std missing"]


def test_mean_and_std_applied_twice_are_named() -> None:
    once = RESNET.pipeline.tensor(ENCODED)
    assert mistakes((once - MEAN) / STD, RESNET) == ["mean and std twice"]
    assert mistakes(once, RESNET) == []


def test_an_ignored_orientation_is_named() -> None:
    from visavis_export.pictures.synthetic import synthetic_pictures

    encoded = synthetic_pictures()["synthetic turned"]
    import io

    stored = np.asarray(PillowImage.open(io.BytesIO(encoded)).convert("RGB"))
    assert mistakes(planes(letterboxed(stored, 320)), DETECTOR, encoded) == ["orientation"]


def test_their_tensor_is_explained_beside_a_file_that_is_the_same(
    exported: Exported, tmp_path: Path
) -> None:
    stretched = planes(cv2.resize(PICTURE, (320, 320)))
    outcome = exported.about(tmp_path, tensor=stretched[None].transpose(0, 2, 3, 1))
    assert outcome.file_is_same and not outcome.same
    assert outcome.theirs is not None
    assert [one.mistake for one in outcome.theirs] == ["channels last", "stretched"]
    assert {one.stage for one in outcome.theirs} == {Stage.PREPROCESSING}
    assert exported.about(tmp_path, tensor=planes(letterboxed(PICTURE, 320))).same
