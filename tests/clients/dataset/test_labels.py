"""Labels in the forms that people have: read right, or refused by file and line."""

import codecs
import re
from pathlib import Path

import pytest
from visavis.dataset import Truth, find_pictures, read_boxes, read_classes
from visavis.errors import InvalidData

PICTURE = "a.jpg"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pictures = tmp_path / "images"
    for name in (PICTURE, "b.jpg", "cats/c.jpg"):
        (pictures / name).parent.mkdir(parents=True, exist_ok=True)
        (pictures / name).write_bytes(b"")
    return pictures


def classes(folder: Path, text: str | bytes) -> dict[str, object]:
    path = folder / "labels.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    found = read_classes(folder, find_pictures(folder), path)
    return {one.path.relative_to(folder).as_posix(): one.truth for one in found}


def boxes(folder: Path, text: str | bytes) -> object:
    path = folder.parent / "labels" / "a.txt"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_boxes(folder, find_pictures(folder))[0].truth


@pytest.mark.parametrize(
    "text",
    [
        "file,class_index\na.jpg,281\ncats/c.jpg,3\n",
        codecs.BOM_UTF8 + b"file,class_index\r\na.jpg,281\r\ncats/c.jpg,3\r\n",
        "file;class_index\na.jpg;281,0\ncats\\c.jpg;3,0\n",
        "file\tclass_index\na.jpg\t281\ncats/c.jpg\t3\n",
        'File, Class_Index, name\n"a.jpg", 281.0, "a cat, sitting"\ncats/c.jpg, 3, other\n',
        "class_index,file\n281,./a.jpg\n\n3,cats/c.jpg\n",
        "sep=;\r\nfile;class_index;\r\na.jpg;281;\r\ncats/c.jpg;3;\r\n;;\r\n",
    ],
    ids=["plain", "excel", "european excel", "tabs", "spaced", "other order", "hint and rest"],
)
def test_a_csv_file_of_any_spreadsheet_is_read(text: str | bytes, folder: Path) -> None:
    assert classes(folder, text) == {"a.jpg": 281, "cats/c.jpg": 3}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("file,class_index\na.jpg,1\nb.jpg,cat\n", "line 3: class_index is 'cat'; it must be"),
        ("file,class_index\na.jpg,-1\n", "line 2: class_index is '-1'"),
        ("file,class_index\na.jpg,1.5\n", "line 2: class_index is '1.5'"),
        ("file,class_index\na.jpg,nan\n", "line 2: class_index is 'nan'"),
        ("file,class_index\na.jpg,inf\n", "line 2: class_index is 'inf'"),
        ("file,class_index\na.jpg\n", "line 2: class_index is ''"),
        ("file,class_index\na.jpg,281,0\n", "line 2: must be a file and its class"),
        ("file,class_index\na.jpg,1\n./a.jpg,2\n", "line 3: ./a.jpg already has a class in line 2"),
        ("file,class\na.jpg,1\n", "has no column class_index; its first line must be"),
        ("", "has no column class_index and no column file"),
        ("file,class_index\nz.jpg,1\n", "names no picture in"),
        ("file,class_index\nä.jpg,1\n".encode("latin-1"), "is not UTF-8; save it as UTF-8"),
        ("file,class_index\na.jpg,1\n".encode("utf-16"), "is not UTF-8; save it as UTF-8"),
        (f"file,class_index\n{'x' * 200_000},1\n", "invalid CSV: field larger than"),
    ],
)
def test_an_invalid_row_is_reported_by_file_and_line(
    text: str | bytes, complaint: str, folder: Path
) -> None:
    with pytest.raises(InvalidData, match=f"labels.csv.*{re.escape(complaint)}"):
        classes(folder, text)


def test_blank_lines_before_the_columns_are_skipped(folder: Path) -> None:
    labels = folder / "labels.csv"
    labels.write_text("\n \nfile,class_index\na.jpg,5\nb.jpg,x\n")
    with pytest.raises(InvalidData, match=r"labels\.csv, line 5: class_index is 'x'"):
        read_classes(folder, find_pictures(folder), labels)
    labels.write_text("\n \nfile,class_index\na.jpg,5\n")
    (one,) = read_classes(folder, find_pictures(folder), labels)
    assert one.truth == 5


def test_line_numbers_include_excels_delimiter_line(folder: Path) -> None:
    with pytest.raises(InvalidData, match=r"labels\.csv, line 3: class_index is 'cat'"):
        classes(folder, "sep=;\nfile;class_index\na.jpg;cat\n")


@pytest.mark.parametrize("written", ["caf\u00e9.jpg", "cafe\u0301.jpg"])
def test_composed_and_decomposed_accents_are_equal(written: str, tmp_path: Path) -> None:
    for name in ("caf\u00e9.jpg", "cafe\u0301.jpg"):
        folder = tmp_path / str(len(name))
        folder.mkdir()
        (folder / name).write_bytes(b"")
        assert classes(folder, f"file,class_index\n{written},7\n") == {name: 7}


@pytest.mark.parametrize(
    "text",
    [
        "5;0.5;0.25;0.2;0.1\n",
        "5;0,5;0,25;0,2;0,1\r\n",
        "5,0 0,5 0,25 0,2 0,1",
        "5\t.5\t.25\t.2\t.1",
    ],
)
def test_semicolons_tabs_and_decimal_commas_are_read(text: str, folder: Path) -> None:
    assert boxes(folder, text) == (Truth(5, 0.5, 0.25, 0.2, 0.1),)


def test_files_of_file_managers_among_labels_are_skipped(folder: Path) -> None:
    labels = folder.parent / "text"
    for name in ("._a.txt", ".Trash/a.txt", "@eaDir/a.txt", "__MACOSX/a.txt"):
        (labels / name).parent.mkdir(parents=True, exist_ok=True)
        (labels / name).write_bytes(b"\0\5\x16\7")
    (labels / "mine").mkdir()
    (labels / "mine" / "a.txt").write_text("1 .5 .5 .1 .1")
    found = read_boxes(folder, find_pictures(folder), labels)
    assert found[0].truth == (Truth(1, 0.5, 0.5, 0.1, 0.1),)


@pytest.mark.parametrize("written", ["caf\u00e9", "cafe\u0301"])
def test_labels_beside_images_are_found_whatever_the_accents(written: str, tmp_path: Path) -> None:
    for name in ("caf\u00e9", "cafe\u0301", "b"):
        images, labels = (tmp_path / f"{len(name)}" / part for part in ("images", "labels"))
        images.mkdir(parents=True)
        labels.mkdir()
        (images / f"{name}.jpg").write_bytes(b"")
        (labels / f"{written if name != 'b' else name}.txt").write_text("4 .5 .5 .1 .1")
        (found,) = read_boxes(images, find_pictures(images))
        assert found.truth == (Truth(4, 0.5, 0.5, 0.1, 0.1),)


@pytest.mark.parametrize("place", ["labels/b.TXT", "images/b.txt", "images/b.TXT"])
def test_labels_are_found_in_capitals_and_beside_a_picture_in_images(
    place: str, tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    for name in "ab":
        (tmp_path / "images" / f"{name}.jpg").write_bytes(b"")
    (tmp_path / "labels" / "a.txt").write_text("1 .5 .5 .1 .1")
    (tmp_path / place).write_text("4 .5 .5 .1 .1")
    _, found = read_boxes(tmp_path / "images", find_pictures(tmp_path / "images"))
    assert found.truth == (Truth(4, 0.5, 0.5, 0.1, 0.1),)


def test_a_linked_folder_of_labels_is_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "a.txt").write_text("1 .5 .5 .1 .1")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "linked").symlink_to(tmp_path / "store")
    found = read_boxes(folder, find_pictures(folder), tmp_path / "text")
    assert found[0].truth == (Truth(1, 0.5, 0.5, 0.1, 0.1),)


def test_a_polygon_becomes_the_box_around_it(folder: Path) -> None:
    (truth,) = boxes(folder, "7 0.25 0.5 0.5 0.25 0.75 0.5 0.5 1.0\n")
    assert truth == Truth(7, 0.5, 0.625, 0.5, 0.75)


def test_class_ids_with_a_decimal_point_a_mark_and_blank_lines_are_read(folder: Path) -> None:
    text = codecs.BOM_UTF8 + b"5.0 0.5 0.25 0.2 0.1\r\n\r\n   \n0 0.1 0.2 0.3 0.4"
    assert boxes(folder, text) == (Truth(5, 0.5, 0.25, 0.2, 0.1), Truth(0, 0.1, 0.2, 0.3, 0.4))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            "0 320 240 64 48\n",
            "line 1: '320' is not a fraction of the picture, from 0 to 1; divide pixels",
        ),
        ("0 .5 .5 .1 .1\n0 nan .5 .1 .1\n", "line 2: 'nan' is not a fraction"),
        ("0 .5 .5 inf .1\n", "line 1: 'inf' is not a fraction"),
        ("0 .5 .5 -.1 .1\n", "line 1: '-.1' is not a fraction"),
        ("0 .5 .5 0 .1\n", "line 1: the width is 0; it must be above 0"),
        ("0 .5 .5 .1 -.005\n", "line 1: the height is -0.005; it must be above 0"),
        ("0 .1 .1 .1 .5 .1 .9\n", "line 1: the width is 0"),
        ("0 .5 .5 .1 .1\n1 .5 .5 .1 .1\n\n0 .50 .5 .1 .1\n", "line 4: repeats line 1"),
        ("0 .5 .5 .1\n", "line 1: has 4 columns"),
        ("0 .5 .5 .1 .1 .9\n", "line 1: has 6 columns"),
        ("0\n", "line 1: has 1 columns"),
        ("0,.5,.5,.1,.1\n", "line 1: has commas between the columns"),
        ("0 0,5 0,5 320,0 0,1\n", "line 1: '320,0' is not a fraction"),
        ("1_0 .5 .5 .1 .1\n", "line 1: the class is '1_0'; it must be a whole number"),
        ("0 0.2_5 .5 .1 .1\n", "line 1: '0.2_5' is not a fraction"),
        ("cat .5 .5 .1 .1\n", "line 1: the class is 'cat'; it must be a whole number, 0 or above"),
        ("1.5 .5 .5 .1 .1\n", "line 1: the class is '1.5'"),
        ("\xff\xfe0".encode("latin-1"), "is not UTF-8"),
    ],
)
def test_an_invalid_box_is_reported_by_file_and_line(
    text: str | bytes, complaint: str, folder: Path
) -> None:
    with pytest.raises(InvalidData, match=f"a.txt.*{re.escape(complaint)}"):
        boxes(folder, text)


def test_a_linked_picture_finds_the_labels_beside_the_link(tmp_path: Path) -> None:
    """Data sets are often folders of links into one store of pictures."""
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "8f3a.jpg").write_bytes(b"")
    images, labels = tmp_path / "set" / "images", tmp_path / "set" / "labels"
    images.mkdir(parents=True)
    labels.mkdir()
    (images / "1.jpg").symlink_to(tmp_path / "store" / "8f3a.jpg")
    (labels / "1.txt").write_text("4 .5 .5 .5 .5")
    (found,) = read_boxes(images, find_pictures(images))
    assert found.truth == (Truth(4, 0.5, 0.5, 0.5, 0.5),)


def test_a_linked_picture_without_labels_finds_those_of_its_target(tmp_path: Path) -> None:
    images, labels = tmp_path / "coco" / "images", tmp_path / "coco" / "labels"
    images.mkdir(parents=True)
    labels.mkdir()
    (images / "1.jpg").write_bytes(b"")
    (labels / "1.txt").write_text("4 .5 .5 .5 .5")
    chosen = tmp_path / "chosen"
    chosen.mkdir()
    (chosen / "1.jpg").symlink_to(images / "1.jpg")
    (found,) = read_boxes(chosen, find_pictures(chosen))
    assert found.truth == (Truth(4, 0.5, 0.5, 0.5, 0.5),)


def test_a_linked_folder_finds_the_labels_beside_its_target(tmp_path: Path) -> None:
    (tmp_path / "disk" / "images").mkdir(parents=True)
    (tmp_path / "disk" / "labels").mkdir()
    (tmp_path / "disk" / "images" / "1.jpg").write_bytes(b"")
    (tmp_path / "disk" / "labels" / "1.txt").write_text("2 .5 .5 .5 .5")
    (tmp_path / "pictures").symlink_to(tmp_path / "disk" / "images")
    (found,) = read_boxes(tmp_path / "pictures", find_pictures(tmp_path / "pictures"))
    assert found.truth == (Truth(2, 0.5, 0.5, 0.5, 0.5),)


def test_the_same_name_in_two_folders_keeps_its_own_labels(tmp_path: Path) -> None:
    images, labels = tmp_path / "pictures", tmp_path / "boxes"
    for number, name in enumerate(("day", "night")):
        (images / name).mkdir(parents=True)
        (labels / name).mkdir(parents=True)
        (images / name / "1.jpg").write_bytes(b"")
        (labels / name / "1.txt").write_text(f"{number} .5 .5 .5 .5")
    found = read_boxes(images, find_pictures(images), labels)
    assert [one.truth[0].class_id for one in found if isinstance(one.truth, tuple)] == [0, 1]


@pytest.mark.parametrize("where", [("1.txt",), ("x/1.txt", "y/1.txt")])
def test_labels_that_may_belong_to_two_pictures_are_rejected(
    where: tuple[str, ...], tmp_path: Path
) -> None:
    images, labels = tmp_path / "pictures", tmp_path / "boxes"
    for name in ("day", "night"):
        (images / name).mkdir(parents=True)
        (images / name / "1.jpg").write_bytes(b"")
    for name in where:
        (labels / name).parent.mkdir(parents=True, exist_ok=True)
        (labels / name).write_text("0 .5 .5 .5 .5")
    with pytest.raises(InvalidData, match=r"may belong to .*; give the labels the same folders"):
        read_boxes(images, find_pictures(images), labels)


def test_a_label_file_at_the_path_of_one_picture_is_used_for_no_other(tmp_path: Path) -> None:
    images, labels = tmp_path / "pictures", tmp_path / "labels"
    for name in ("day/a.jpg", "night/a.jpg"):
        (images / name).parent.mkdir(parents=True)
        (images / name).write_bytes(b"")
    (labels / "day").mkdir(parents=True)
    (labels / "day" / "a.txt").write_text("1 .5 .5 .1 .1")
    found = read_boxes(images, find_pictures(images), labels)
    assert [one.truth for one in found] == [(Truth(1, 0.5, 0.5, 0.1, 0.1),), ()]


def test_one_label_file_serves_a_picture_in_two_formats(tmp_path: Path) -> None:
    for name in ("1.jpg", "1.png"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "1.txt").write_text("0 .5 .5 .5 .5")
    found = read_boxes(tmp_path, find_pictures(tmp_path), tmp_path / "labels")
    assert [len(one.truth) for one in found if isinstance(one.truth, tuple)] == [1, 1]


def test_a_folder_without_any_label_file_says_nothing_about_its_pictures(tmp_path: Path) -> None:
    """Photographs beside a labelled set are not pictures without objects."""
    for name in ("coco/images/a.png", "coco/images/empty.png", "photos/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "coco/labels").mkdir()
    (tmp_path / "coco/labels/a.txt").write_text("0 0.5 0.5 0.2 0.1\n")
    pictures = sorted(tmp_path.rglob("*.png"))
    found = {one.path.name: len(one.truth) for one in read_boxes(tmp_path, pictures)}
    assert found == {"a.png": 1, "empty.png": 0}
