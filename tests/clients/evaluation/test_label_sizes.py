"""Labels that were made for a picture of another shape are refused."""

from pathlib import Path

import pytest
from PIL import Image
from visavis.dataset.labels import Labelled, Truth
from visavis.errors import InvalidData
from visavis.evaluation.label_sizes import require_sizes

BOX = (Truth(0, 0.5, 0.5, 0.1, 0.1),)


def picture(folder: Path, orientation: int = 1) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (400, 300)).save(folder / "a.jpg", exif=exif)
    return folder / "a.jpg"


@pytest.mark.parametrize("size", [(400, 300), (200, 150), (1000, 750), (33, 25), None])
def test_labels_of_a_picture_that_was_scaled_since_fit(
    tmp_path: Path, size: tuple[float, float] | None
) -> None:
    require_sizes([Labelled(picture(tmp_path), BOX, size)])


def test_labels_that_ignore_the_orientation_are_refused(tmp_path: Path) -> None:
    turned = picture(tmp_path, 6)
    require_sizes([Labelled(turned, BOX, (300, 400)), Labelled(turned, (), (400, 300))])
    why = r"a\.jpg is 300 × 400 px upright, but its labels are for 400 × 300 px and ignore its"
    with pytest.raises(InvalidData, match=why):
        require_sizes([Labelled(turned, BOX, (400, 300))])


def test_labels_of_a_picture_that_was_cropped_since_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="its labels are for 400 × 200 px; label"):
        require_sizes([Labelled(picture(tmp_path), BOX, (400, 200))])


def test_pictures_that_cannot_be_read_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    require_sizes([Labelled(tmp_path / name, BOX, (4, 3)) for name in ("a.jpg", "gone.jpg")])
