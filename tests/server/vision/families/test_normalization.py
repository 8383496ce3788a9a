"""Normalisation, against the same arithmetic for every pixel."""

import numpy as np
import pytest

from visavis_server.card import ModelInput, Stretch
from visavis_server.vision.families.normalization import normalize, normalized_values

from ...pictures import noise

EVERY_VALUE = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.mark.parametrize(
    ("mean", "std"),
    [((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))],
)
def test_every_value_equals_that_of_float32_arithmetic(
    mean: tuple[float, float, float], std: tuple[float, float, float]
) -> None:
    model_input = ModelInput(
        tensor="images", width=16, height=16, resize=Stretch(), mean=mean, std=std
    )
    out = np.empty((3, 16, 16), np.float32)
    normalize(np.stack((EVERY_VALUE,) * 3, axis=2), normalized_values(model_input), out)
    # ToTensor divides by 255; Normalize subtracts, then divides: each rounds to float32.
    scaled = EVERY_VALUE.astype(np.float32) / np.float32(255)
    for plane, m, s in zip(out, np.array(mean, np.float32), np.array(std, np.float32), strict=True):
        np.testing.assert_array_equal(plane, (scaled - m) / s)


def test_only_its_place_in_a_batch_is_written() -> None:
    image = noise(5, 7, 3)
    values = np.arange(3 * 256, dtype=np.float32).reshape(3, 256)
    batch = np.full((3, 3, 9, 11), np.nan, np.float32)
    normalize(image, values, batch[1, :, 2:7, 3:10])
    place = np.zeros(batch.shape, bool)
    place[1, :, 2:7, 3:10] = True
    np.testing.assert_array_equal(np.isnan(batch), ~place)
    expected = image.transpose(2, 0, 1) + np.arange(0, 768, 256)[:, None, None]
    np.testing.assert_array_equal(batch[1, :, 2:7, 3:10], expected)
