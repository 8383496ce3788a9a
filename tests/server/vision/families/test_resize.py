"""The resize of classifiers, in C and by Pillow, against Pillow's resize of the whole."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from visavis_server.vision.families import resize
from visavis_server.vision.families.resize import resize_shorter_side

from ...pictures import noise

# A picture whose last byte is the last that may be read: behind it the process dies.
AT_THE_BORDER = """
import ctypes, mmap
import numpy as np
from visavis_server.vision.families.resize import Axis, rows_first_in_c

width, height, page = 41, 33, mmap.PAGESIZE
memory = mmap.mmap(-1, 2 * page)
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(address + page), page, 0) == 0
start = page - 3 * width * height
image = np.frombuffer(memory, np.uint8, 3 * width * height, start).reshape(height, width, 3)
x, y = Axis(width, 20, 0, 20), Axis(height, 20, 0, 20)
assert not rows_first_in_c(image, x, y).any()
"""


@pytest.fixture(params=["C", "Pillow"], scope="module", autouse=True)
def made_by(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "Pillow":
            patch.setattr(resize, "rows_first_in_c", None)
        elif resize.rows_first_in_c is None:
            pytest.skip("the product was installed where no C compiler was")
        yield


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
def test_an_extreme_strip_shows_its_centre(length: int, thickness: int, upright: bool) -> None:
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


def test_a_picture_may_be_a_slice_of_another_or_flipped() -> None:
    large = noise(130, 170, 3)
    for image in (large[10:, 20:90], large[::-1], large[:, ::-1], large[::2], large[:1, :1]):
        np.testing.assert_array_equal(
            resize_shorter_side(image, 32, 32, 32),
            resize_shorter_side(image.copy(), 32, 32, 32),
        )


@pytest.mark.usefixtures("minimal_surroundings")
@pytest.mark.skipif(resize.rows_first_in_c is None, reason="there is no C compiler")
@pytest.mark.skipif(sys.platform != "linux", reason="it protects memory as Linux does")
def test_nothing_beyond_a_picture_is_read() -> None:
    ran = subprocess.run([sys.executable, "-c", AT_THE_BORDER], check=False, timeout=60)
    assert ran.returncode == 0
