"""Finding the labels of real pictures, and splitting the pictures by use."""

from itertools import pairwise
from pathlib import Path

import pytest
from visavis.dataset import Truth

from visavis_export.errors import ExportError
from visavis_export.pictures.labelled import CALIBRATION_PICTURES, read_labelled
from visavis_server.card import Task

CLASSES, BOXES = Task.CLASSIFICATION, Task.OBJECT_DETECTION


def pictures(folder: Path, count: int) -> list[Path]:
    """Make files with the names of pictures, which these tests never open."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index:03}.jpg" for index in range(count)]
    for path in paths:
        path.write_bytes(b"")
    return paths


def class_labels(folder: Path, count: int) -> Path:
    path = folder / "labels.csv"
    rows = [f"{index:03}.jpg,{index % 7}" for index in range(count)]
    path.write_text("\n".join(["file,class_index", *rows]))
    return path


def test_a_csv_file_among_the_pictures_is_found(tmp_path: Path) -> None:
    pictures(tmp_path, 4)
    class_labels(tmp_path, 3)
    found = read_labelled(tmp_path, None, CLASSES)
    assert [(one.path.name, one.truth) for one in found.accuracy] == [
        ("000.jpg", 0),
        ("001.jpg", 1),
        ("002.jpg", 2),
    ]


@pytest.mark.parametrize("given", ["coco", "coco/images", "coco/images/train"])
def test_text_files_are_found_where_yolo_puts_them(given: str, tmp_path: Path) -> None:
    pictures(tmp_path / "coco" / "images" / "train", 3)
    labels = tmp_path / "coco" / "labels" / "train"
    labels.mkdir(parents=True)
    (labels / "000.txt").write_text("5 0.5 0.25 0.2 0.1\n0 0.1 0.2 0.3 0.4\n")
    (labels / "001.txt").write_text("")
    found = read_labelled(tmp_path / given, None, BOXES)
    assert [one.truth for one in found.accuracy] == [
        (Truth(5, 0.5, 0.25, 0.2, 0.1), Truth(0, 0.1, 0.2, 0.3, 0.4)),
        (),
        (),  # an empty file: a picture without objects
    ]


def test_labels_that_lie_elsewhere_are_named(tmp_path: Path) -> None:
    pictures(tmp_path / "pictures", 2)
    (tmp_path / "boxes").mkdir()
    (tmp_path / "boxes" / "001.txt").write_text("3 0.5 0.5 1 1")
    found = read_labelled(tmp_path / "pictures", tmp_path / "boxes", BOXES)
    assert [len(one.truth) for one in found.accuracy if isinstance(one.truth, tuple)] == [0, 1]


def test_without_labels_there_is_only_calibration(tmp_path: Path) -> None:
    paths = pictures(tmp_path, 10)
    found = read_labelled(tmp_path, None, BOXES)
    assert found.accuracy == ()
    assert set(found.calibration) < set(paths)


def test_pictures_for_the_accuracy_are_others_than_those_for_the_ranges(tmp_path: Path) -> None:
    paths = pictures(tmp_path, 200)
    class_labels(tmp_path, 200)
    found = read_labelled(tmp_path, None, CLASSES)
    measured = {one.path for one in found.accuracy}
    assert len(found.calibration) == CALIBRATION_PICTURES
    assert measured | set(found.calibration) == set(paths)
    assert found.held_out
    # Evenly chosen: no two more than two steps apart.
    chosen = [paths.index(path) for path in found.calibration]
    gaps = {after - before for before, after in pairwise(chosen)}
    assert max(gaps) - min(gaps) <= 1
    assert found == read_labelled(tmp_path, None, CLASSES)


def test_too_few_others_are_joined_by_those_of_the_calibration(tmp_path: Path) -> None:
    pictures(tmp_path, 40)
    class_labels(tmp_path, 40)
    found = read_labelled(tmp_path, None, CLASSES)
    assert len(found.accuracy) == 40
    assert not found.held_out


@pytest.mark.parametrize(
    ("task", "labels", "complaint"),
    [
        (CLASSES, "boxes", "is a folder, as for a detector; a classifier needs a CSV file"),
        (BOXES, "names.txt", "is not a folder; .*--class-names"),
        (BOXES, "empty", "has no PICTURE.txt for any picture"),
        (CLASSES, "nowhere.csv", "nowhere.csv does not exist"),
        (CLASSES, "names.txt", "has no column class_index and no column file"),
        (CLASSES, "others.csv", "names no picture in"),
        (BOXES, "boxes", "000.txt, line 1: has 3 columns; a box has 5, `class cx cy width height`"),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    task: Task, labels: str, complaint: str, tmp_path: Path
) -> None:
    pictures(tmp_path / "pictures", 2)
    (tmp_path / "boxes").mkdir()
    (tmp_path / "boxes" / "000.txt").write_text("cat 0.5 0.5\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    (tmp_path / "others.csv").write_text("file,class_index\nother.jpg,1\n")
    with pytest.raises(ExportError, match=complaint):
        read_labelled(tmp_path / "pictures", tmp_path / labels, task)


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="has no JPEG, PNG or WebP picture"):
        read_labelled(tmp_path, None, CLASSES)
