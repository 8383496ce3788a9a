import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageOps
from visavis.errors import InvalidRequest
from visavis.images import image_message
from visavis.v1 import vision_pb2 as pb

from . import fresh_python


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, np.frombuffer])
def test_any_bytes_type_is_an_encoded_picture(kind):
    source = (
        kind(b"\xff\xd8jpeg", dtype=np.uint8) if kind is np.frombuffer else kind(b"\xff\xd8jpeg")
    )
    assert image_message(source) == pb.Image(encoded=b"\xff\xd8jpeg")


def test_path_may_be_a_string_or_a_path(tmp_path: Path):
    path = tmp_path / "bus.jpg"
    path.write_bytes(b"jpeg")
    assert image_message(path) == image_message(str(path)) == pb.Image(encoded=b"jpeg")


def test_missing_file_raises_pythons_error():
    with pytest.raises(FileNotFoundError):
        image_message("no/such/picture.jpg")


@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_every_rgb_array_keeps_its_size_and_its_pixels(pixels: np.ndarray):
    raw = image_message(pixels).raw
    assert raw.format == pb.PIXEL_FORMAT_RGB
    assert (raw.height, raw.width) == pixels.shape[:2]
    assert np.array_equal(np.frombuffer(raw.data, np.uint8).reshape(pixels.shape), pixels)


@pytest.mark.parametrize("turn", [np.flipud, np.fliplr, lambda pixels: pixels[::2, ::3]])
def test_array_that_is_not_contiguous_arrives_row_by_row(turn):
    pixels = turn(np.arange(12 * 9 * 3, dtype=np.uint8).reshape(12, 9, 3))
    assert image_message(pixels).raw.data == np.ascontiguousarray(pixels).tobytes()


def test_bgr_pixels_are_sent_unchanged_as_bgr():
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    raw = image_message(pixels, "BGR").raw
    assert raw.format == pb.PIXEL_FORMAT_BGR
    assert raw.data == pixels.tobytes()


def test_channels_other_than_rgb_and_bgr_are_rejected():
    with pytest.raises(InvalidRequest, match="channels is 'RGBA'; use RGB, or BGR"):
        image_message(np.zeros((4, 7, 3), np.uint8), "RGBA")  # type: ignore[arg-type]


def test_array_of_two_dimensions_is_grey():
    raw = image_message(np.zeros((4, 7), np.uint8)).raw
    assert (raw.format, raw.width, raw.height) == (pb.PIXEL_FORMAT_GRAY, 7, 4)


@pytest.mark.parametrize(
    ("mode", "pixel_format"), [("RGB", pb.PIXEL_FORMAT_RGB), ("L", pb.PIXEL_FORMAT_GRAY)]
)
def test_pillow_image_is_accepted(mode: str, pixel_format: pb.PixelFormat):
    picture = Image.new(mode, (7, 4))
    raw = image_message(picture).raw
    assert (raw.format, raw.width, raw.height) == (pixel_format, 7, 4)
    assert raw.data == picture.tobytes()


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_pillow_image_of_another_mode_is_sent_as_the_rgb_that_it_shows(mode: str):
    colours = np.random.default_rng(0).integers(0, 256, (4, 7, 3), np.uint8)
    picture = Image.fromarray(colours).convert(mode)
    raw = image_message(picture).raw
    assert raw.format == pb.PIXEL_FORMAT_RGB
    # PNG has neither CMYK, nor YCbCr, nor HSV, which Pillow shows as RGB.
    shown = picture if mode in ("1", "P", "LA", "RGBA") else picture.convert("RGB")
    shown.save(file := io.BytesIO(), "PNG")
    decoded = cv2.cvtColor(
        cv2.imdecode(np.frombuffer(file.getvalue(), np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB
    )
    assert raw.data == decoded.tobytes()


class Trickle(io.RawIOBase):
    """A file that gives less than it is asked for, as a socket's does."""

    def __init__(self, contents: bytes) -> None:
        self.left = contents

    def read(self, size: int = -1) -> bytes:
        part, self.left = self.left[:2], self.left[2:]
        return part


def test_open_file_is_an_encoded_picture(tmp_path: Path):
    path = tmp_path / "bus.jpg"
    path.write_bytes(b"jpeg")
    with path.open("rb") as file:
        assert image_message(file) == pb.Image(encoded=b"jpeg")
    assert image_message(io.BytesIO(b"jpeg")) == pb.Image(encoded=b"jpeg")
    assert image_message(Trickle(b"jpegs")) == pb.Image(encoded=b"jpegs")


def test_endless_file_is_rejected_before_memory_is_full():
    with open("/dev/zero", "rb") as endless, pytest.raises(InvalidRequest, match="the limit is"):
        image_message(endless)


def test_file_larger_than_a_message_is_rejected_unread(tmp_path: Path):
    path = tmp_path / "sparse.jpg"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InvalidRequest, match="image is 1099511627776 bytes; the limit is"):
        image_message(path)


def test_an_empty_file_is_rejected_as_empty(tmp_path: Path):
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(InvalidRequest, match="image is empty"):
        image_message(tmp_path / "empty.jpg")


def test_a_device_without_an_end_is_rejected():
    with pytest.raises(InvalidRequest, match=r"image is \d+ bytes; the limit is"):
        image_message("/dev/zero")


def test_image_message_is_passed_on():
    message = pb.Image(raw=pb.RawImage(format=pb.PIXEL_FORMAT_BGR, width=1, height=1, data=b"bgr"))
    assert image_message(message) is message


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (np.zeros((4, 7, 3), np.float32), "float32 pixels; use uint8"),
        (np.zeros((4, 7, 3), np.int8), "int8 pixels"),
        (np.zeros((4, 7, 4), np.uint8), "drop the alpha channel"),
        (np.zeros((3, 4, 7), np.uint8), "move the channels to the end"),
        (np.zeros((1, 4, 7, 3), np.uint8), "one picture at a time"),
        (np.zeros((0, 7, 3), np.uint8), "must be between 1 and 65535"),
        (np.zeros((), np.uint8), "use RGB [H, W, 3]"),
        (Image.new("I", (7, 4)), "Pillow's mode I; convert its pixels to uint8 RGB"),
        (Image.new("LAB", (7, 4)), "Pillow's mode LAB"),
        (io.StringIO("text"), 'open it in binary mode, "rb"'),
        (io.BytesIO(), "an open file at its end"),
        (b"", "image is empty"),
        (None, "image is a NoneType"),
        (4, "image is a int"),
        ("https://example.org/bus.jpg", "download it and pass its bytes"),
        ("s3://bucket/bus.jpg", "download it and pass its bytes"),
        ("data:image/png;base64,iVBORw0KGgo=", "decode its base64 and pass its bytes"),
    ],
)
def test_unusable_picture_is_rejected_with_the_reason(source: object, text: str):
    with pytest.raises(InvalidRequest) as caught:
        image_message(source)
    assert text in caught.value.message
    assert caught.value.field == "image"


def test_rotated_pillow_image_is_rejected_until_it_is_transposed(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (7, 4)).save(tmp_path / "sideways.jpg", exif=exif)
    with Image.open(tmp_path / "sideways.jpg") as picture:
        with pytest.raises(InvalidRequest, match=r"EXIF orientation 6.*exif_transpose") as caught:
            image_message(picture)
        assert caught.value.field == "image"
        raw = image_message(ImageOps.exif_transpose(picture)).raw
        assert (raw.width, raw.height) == (4, 7)
    Image.new("RGB", (7, 4)).save(tmp_path / "upright.jpg")
    with Image.open(tmp_path / "upright.jpg") as picture:
        assert image_message(picture).raw.width == 7


def test_picture_larger_than_a_message_is_rejected_before_sending():
    with pytest.raises(InvalidRequest, match="the limit is"):
        image_message(bytes(96 * 1024 * 1024))


def test_largest_pixels_that_the_server_accepts_are_accepted():
    pixels = memoryview(bytes(75_000_000)).cast("B", (5000, 5000, 3))
    assert len(image_message(pixels).raw.data) == 75_000_000


def test_numpy_pillow_and_other_optional_packages_are_not_imported():
    loaded = fresh_python("import sys, visavis, visavis.commands; print(*sys.modules)").split()
    others = {"numpy", "PIL", "pandas", "supervision", "visavis_server", "visavis_export"}
    assert not others & set(loaded)
