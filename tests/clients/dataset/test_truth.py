"""The truth of pictures in the forms that people have, and what is wrong with it by file."""

import json
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from visavis.cards import Task
from visavis.dataset.labels import Labelled, Truth
from visavis.dataset.names import ClassNames, comparable
from visavis.dataset.truth import give_class_ids, read_truth
from visavis.errors import InvalidData

NAMES = ("person", "airplane", "potted plant")
VOC = """<annotation><size><width>100</width><height>50</height><depth>3</depth></size>{}
</annotation>"""
OBJECT = """<object><name>{}</name><difficult>{}</difficult><bndbox><xmin>{}</xmin><ymin>{}</ymin>
<xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for name in ("person/a.jpg", "airplane/b.jpg"):
        path = folder / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
    return folder


def pictures(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.jpg"))


def classes(folder: Path, labels: Path | None) -> tuple[Labelled, ...]:
    return read_truth(folder, pictures(folder), labels, Task.CLASSIFICATION, NAMES, Counter())


def boxes(folder: Path, labels: Path | None) -> dict[str, Any]:
    found = read_truth(folder, pictures(folder), labels, Task.DETECTION, NAMES, Counter())
    return {one.path.name: one.truth for one in found}


def coco(tmp_path: Path, **changes: Any) -> Path:
    data = {
        "images": [
            {"id": 7, "file_name": "person/a.jpg", "width": 100, "height": 50},
            {"id": 9, "file_name": "b.jpg", "width": 10, "height": 10},
        ],
        # COCO's ids have gaps, and its names another spelling.
        "categories": [
            {"id": 1, "name": "person"},
            {"id": 64, "name": "pottedplant"},
            {"id": 90, "name": "toothbrush"},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 64, "bbox": [10, 10, 20, 30], "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 1, "bbox": [0, 0, 100, 50], "iscrowd": 1},
            {"id": 3, "image_id": 7, "category_id": 90, "bbox": [0, 0, 5, 5]},
        ],
    }
    file = tmp_path / "instances.json"
    file.write_text(json.dumps({**data, **changes}))
    return file


def test_a_folder_per_class_gives_each_picture_its_class(folder: Path) -> None:
    assert [(one.path.name, one.truth) for one in classes(folder, folder)] == [
        ("b.jpg", 1),
        ("a.jpg", 0),
    ]
    (folder / "person").rename(folder / "2")
    assert {one.path.name: one.truth for one in classes(folder, folder)}["a.jpg"] == 2


def test_a_folder_that_is_no_class_is_named(folder: Path) -> None:
    (folder / "person").rename(folder / "people")
    with pytest.raises(InvalidData, match=r"people: 'people' is not a class of the model"):
        classes(folder, folder)


def test_texts_beside_folders_of_classes_are_no_labels(folder: Path) -> None:
    for name in ("README.roboflow.txt", "person/notes.txt", "export.xml"):
        (folder / name).write_text("exported on 1 May")
    assert [one.truth for one in classes(folder, folder)] == [1, 0]
    assert boxes(folder, folder) == {}
    assert not give_class_ids(folder, pictures(folder), folder)
    (folder / "person" / "a.txt").write_text("0 .5 .5 .1 .1\n")
    assert classes(folder, folder) == ()
    assert boxes(folder, folder)["a.jpg"] == (Truth(0, 0.5, 0.5, 0.1, 0.1),)
    assert give_class_ids(folder, pictures(folder), folder)


def test_a_csv_file_gives_classes_and_no_boxes(folder: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("file,class_index\nperson/a.jpg,2\n")
    assert [(one.path.name, one.truth) for one in classes(folder, labels)] == [("a.jpg", 2)]
    assert boxes(folder, labels) == {}


def test_a_csv_file_beside_the_pictures_is_found_unless_the_folder_has_one(folder: Path) -> None:
    (folder / "person" / "labels.csv").write_text("file,class_index\na.jpg,2\n")
    (folder / "airplane" / "labels.csv").write_text("file,class_index\nb.jpg,0\n")
    assert {one.path.name: one.truth for one in classes(folder, None)} == {"a.jpg": 2, "b.jpg": 0}
    (folder / "labels.csv").write_text("file,class_index\nperson/a.jpg,1\n")
    assert [(one.path.name, one.truth) for one in classes(folder, None)] == [("a.jpg", 1)]


def test_a_given_csv_files_names_may_be_relative_to_its_own_folder(folder: Path) -> None:
    labels = folder / "person" / "labels.csv"
    labels.write_text("file,class_index\na.jpg,2\n")
    assert [(one.path.name, one.truth) for one in classes(folder, labels)] == [("a.jpg", 2)]


def test_coco_json_is_found_by_names_and_crowds_are_kept(folder: Path, tmp_path: Path) -> None:
    found = boxes(folder, coco(tmp_path))
    assert found["b.jpg"] == ()
    plant, crowd = found["a.jpg"]
    assert plant == Truth(2, 0.2, 0.5, 0.2, 0.6)
    assert crowd == Truth(0, 0.5, 0.5, 1.0, 1.0, crowd=True)
    assert classes(folder, coco(tmp_path)) == ()


def one_box(*box: float) -> dict[str, Any]:
    return {"image_id": 7, "category_id": 1, "bbox": box}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"images": {}}, "`images` must be a list"),
        ({"images": [{"id": "7"}]}, r"images\[0\]: `id` must be a whole number"),
        ({"annotations": [{"image_id": 8, "category_id": 1}]}, r"annotations\[0\]: image_id 8"),
        ({"annotations": [{"image_id": 7, "category_id": 2}]}, r"annotations\[0\]: category_id 2"),
        (
            {"annotations": [{"image_id": 7, "category_id": 1, "bbox": [1, 2, 3]}]},
            r"annotations\[0\]: bbox \[1, 2, 3\]",
        ),
        (
            {"annotations": [{"image_id": 7, "category_id": 1, "bbox": [1, 2, 0, 4]}]},
            r"annotations\[0\]: .* has no area",
        ),
        *(
            ({"annotations": [{"image_id": 7, "category_id": 1, "bbox": box}]}, why)
            for box, why in (
                ([float("nan"), 2, 3, 4], r"annotations\[0\]: bbox .* is not in its picture of"),
                ([1, 2, float("inf"), 4], r"annotations\[0\]: bbox .* is not in its picture of"),
                ([90, 10, 95, 40], r"bbox .* is not in its picture of 100 × 50 px"),  # corners
                ([0.1, 0.2, 0.3, 0.4], r"bbox .* is smaller than a pixel; multiply fractions"),
            )
        ),
        (
            {"annotations": [{"image_id": 7, "category_id": 90, "bbox": [200, 1, 5, 5]}]},
            r"annotations\[0\]: bbox .* is not in its picture",
        ),
        (
            {"annotations": [{"image_id": 7, "category_id": 1, "bbox": [10**400, 1, 2, 3]}]},
            r"annotations\[0\]: bbox .* must be \[x, y, width, height\]",
        ),
        (
            {"categories": [{"id": 1, "name": "person"}, {"id": 1, "name": "airplane"}]},
            r"categories\[1\]: another category has the id 1",
        ),
        ({"annotations": [{"image_id": [7], "category_id": 1}]}, r"image_id \[7\] is not in"),
        ({"annotations": [{"image_id": 7, "category_id": {}}]}, r"category_id \{\} is not in"),
        (
            {
                "annotations": [
                    {"image_id": 7, "category_id": 1, "bbox": [1, 1, 9, 9], "iscrowd": "0"}
                ]
            },
            "iscrowd is '0'; it must be 0 or 1",
        ),
        (
            {"images": [{"id": 7, "file_name": "a.jpg"}, {"id": 7, "file_name": "b.jpg"}]},
            r"images\[1\]: another image has the same id 7",
        ),
        (
            {"images": [{"id": 7, "file_name": "x/a.jpg"}, {"id": 8, "file_name": "x\\a.jpg"}]},
            r"images\[1\]: another image has the same file_name 'x/a.jpg'",
        ),
        ({"categories": [{"id": 1, "name": "ship"}], "annotations": []}, "knows none of its"),
        ({"images": [], "annotations": []}, "lists no picture of"),
    ],
)
def test_wrong_coco_json_is_refused_by_its_entry(
    folder: Path, tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(InvalidData, match=rf"instances\.json.*{why}"):
        boxes(folder, coco(tmp_path, **changes))


@pytest.mark.parametrize("form", ["COCO", "VOC"])
def test_objects_of_classes_that_the_model_lacks_are_counted(
    form: str, folder: Path, tmp_path: Path
) -> None:
    left_out = Counter[str]()
    labels = coco(tmp_path) if form == "COCO" else tmp_path / "xml"
    name = "toothbrush" if form == "COCO" else "dragon"
    objects = OBJECT.format("person", 0, 1, 1, 50, 50), OBJECT.format(name, 0, 1, 1, 50, 50)
    if form == "VOC":
        labels.mkdir()
        (labels / "a.xml").write_text(VOC.format("".join(objects)))
    read_truth(folder, pictures(folder), labels, Task.DETECTION, NAMES, left_out)
    assert left_out == {name: 1}
    if form == "VOC":
        (labels / "a.xml").write_text(VOC.format(objects[1]))
        with pytest.raises(InvalidData, match="knows none of its classes, such as 'dragon'"):
            boxes(folder, labels)


def test_deeply_nested_json_is_refused(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "deep.json"
    file.write_text("[" * 100_000)
    with pytest.raises(InvalidData, match="is not JSON"):
        boxes(folder, file)


def test_pascal_voc_counts_pixels_from_one(folder: Path, tmp_path: Path) -> None:
    labels = tmp_path / "Annotations"
    (labels / "person").mkdir(parents=True)
    objects = OBJECT.format("aeroplane", 0, 1, 1, 50, 50) + OBJECT.format("dragon", 0, 1, 1, 2, 2)
    (labels / "person" / "a.xml").write_text(VOC.format(objects))
    (labels / "b.xml").write_text(VOC.format(OBJECT.format("person", 1, 51, 1, 100, 25)))
    found = boxes(folder, labels)
    assert found["a.jpg"] == (Truth(1, 0.25, 0.5, 0.5, 1.0),)
    assert found["b.jpg"] == (Truth(0, 0.75, 0.25, 0.5, 0.5, crowd=True),)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("<annotation>", "is not XML"),
        *(
            (
                f'<?xml version="1.0" encoding="{encoding}"?>{VOC.format("")}',
                rf"{why}.*; save it as",
            )
            for encoding, why in (("gb2312", "multi-byte encodings"), ("x", "unknown encoding: x"))
        ),
        (VOC.format("").replace("100", "0"), "size must be the picture's width and height"),
        (VOC.format(OBJECT.format("person", 0, 9, 1, 3, 5)), "box of 'person' has no area"),
        (VOC.format(OBJECT.format("person", 0, "x", 1, 3, 5)), "bndbox/xmin is 'x'"),
        (VOC.format(OBJECT.format("dragon", 0, 101, 1, 180, 40)), "is not in its picture of 100"),
        (VOC.format("").replace("100", "nan"), "size/width is 'nan'"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation/>', "declares entities"),
        (VOC.format(OBJECT.format("person", 0, "nan", 1, 3, 5)), "bndbox/xmin is 'nan'"),
        (VOC.format(OBJECT.format("person", 0, 1, 1, "inf", 5)), "bndbox/xmax is 'inf'"),
        ("<a>" * 200_000 + "</a>" * 200_000, "size/width is ''"),
    ],
)
def test_wrong_xml_is_refused_by_its_file(
    folder: Path, tmp_path: Path, text: str, why: str
) -> None:
    labels = tmp_path / "Annotations"
    labels.mkdir()
    (labels / "a.xml").write_text(text)
    with pytest.raises(InvalidData, match=rf"a\.xml.*{why}"):
        boxes(folder, labels)


def place(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return [folder / name for name in names]


def voc_file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(VOC.format(OBJECT.format("person", 0, 1, 1, 50, 50)))


def listed(tmp_path: Path, *names: str) -> Path:
    """Write a COCO file of pictures with one object each."""
    images = [
        {"id": k, "file_name": name, "width": 100, "height": 50} for k, name in enumerate(names)
    ]
    return coco(
        tmp_path,
        images=images,
        annotations=[
            {"image_id": k, "category_id": 1, "bbox": [0, 0, 50, 50]} for k in range(len(names))
        ],
    )


@pytest.mark.parametrize("form", ["COCO", "VOC"])
def test_a_label_at_the_path_of_one_picture_is_used_for_no_other(form: str, tmp_path: Path) -> None:
    found = place(tmp_path / "photos", "day/1.jpg", "night/1.jpg")
    voc_file(tmp_path / "xml" / "day" / "1.xml")
    labels = listed(tmp_path, "day/1.jpg") if form == "COCO" else tmp_path / "xml"
    read = read_truth(tmp_path / "photos", found, labels, Task.DETECTION, NAMES, Counter())
    assert [one.path.parent.name for one in read if one.truth] == ["day"]


def test_a_label_whose_name_differs_in_case_only_belongs_to_the_picture(tmp_path: Path) -> None:
    found = place(tmp_path / "photos", "IMG_1.JPG", "img_2.jpg", "IMG_2.jpg")
    for name in ("img_1", "img_2"):
        voc_file(tmp_path / "xml" / "part" / f"{name}.xml")
    for labels in (tmp_path / "xml", listed(tmp_path, "img_1.jpg", "img_2.jpg")):
        read = read_truth(tmp_path / "photos", found, labels, Task.DETECTION, NAMES, Counter())
        assert [one.path.name for one in read if one.truth] == ["IMG_1.JPG", "img_2.jpg"]


@pytest.mark.parametrize("form", ["COCO", "VOC"])
@pytest.mark.parametrize("names", [("1",), ("x/1", "y/1")])
def test_labels_that_may_belong_to_two_pictures_are_refused(
    form: str, names: tuple[str, ...], tmp_path: Path
) -> None:
    found = place(tmp_path / "photos", "day/1.jpg", "night/1.jpg")
    for name in names:
        voc_file(tmp_path / "xml" / f"{name}.xml")
    labels = tmp_path / "xml"
    if form == "COCO":
        labels = listed(tmp_path, *(f"{name}.jpg" for name in names))
    with pytest.raises(InvalidData, match=r"may belong to .*; give the labels the same folders"):
        read_truth(tmp_path / "photos", found, labels, Task.DETECTION, NAMES, Counter())


def test_a_class_that_the_model_lacks_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,class_index\nperson/a.jpg,3\n")
    with pytest.raises(InvalidData, match=r"a\.jpg is labelled with the class 3, but .* 0 to 2"):
        classes(folder, tmp_path / "labels.csv")
    (folder / "person" / "a.txt").write_text("1 .5 .5 .1 .1\n7 .5 .5 .1 .1\n")
    with pytest.raises(InvalidData, match=r"a\.jpg is labelled with the class 7, but .* 0 to 2"):
        boxes(folder, None)


def test_a_box_of_the_whole_picture_may_count_pixels_from_zero(tmp_path: Path) -> None:
    place(tmp_path / "photos", "a.jpg")
    (tmp_path / "xml").mkdir()
    whole = VOC.format(OBJECT.format("person", 0, 0, 0, 100, 50))
    (tmp_path / "xml" / "a.xml").write_text(whole)
    (truth,) = boxes(tmp_path / "photos", tmp_path / "xml")["a.jpg"]
    assert truth.width == pytest.approx(1.01)


def test_a_path_with_backslashes_in_a_coco_file_is_a_path(tmp_path: Path) -> None:
    found = place(tmp_path / "photos", "day/1.jpg")
    labels = listed(tmp_path, "day\\1.jpg")
    (one,) = read_truth(tmp_path / "photos", found, labels, Task.DETECTION, NAMES, Counter())
    assert one.truth == (Truth(0, 0.25, 0.5, 0.5, 1.0),)


def test_labels_that_are_not_there_are_refused_with_the_forms_that_are(folder: Path) -> None:
    with pytest.raises(InvalidData, match=r"nowhere does not exist; give a CSV file"):
        classes(folder, folder / "nowhere")


def test_names_are_the_same_whatever_their_spelling() -> None:
    assert comparable("Potted_Plant") == comparable("pottedplant") == comparable("potted plant")
    assert comparable("TrafficLight") == comparable("traffic-light") == comparable("traffic light")
    assert comparable("hair dryer") == comparable("hairdryer") == comparable("hair drier")
    assert comparable("TV/Monitor") == comparable("tvmonitor") == comparable("tv")
    assert comparable("cat") != comparable("cart")
    assert comparable("カラス") != comparable("ガラス")  # a crow and a glass
    names = ClassNames(("crane", "cat", "crane"))
    assert names.class_id("CAT", "x") == 1
    with pytest.raises(InvalidData, match="the name of two classes"):
        names.class_id("crane", "x")


def test_classes_that_differ_in_case_or_accents_only_are_found_as_they_are_spelled() -> None:
    names = ClassNames(("A", "a", "-", "é", "ｶﾞﾗｽ"))
    assert [names.find(one) for one in ("A", "a", "-", "e\N{COMBINING ACUTE ACCENT}")] == [
        0,
        1,
        2,
        3,
    ]
    assert names.class_id("a", "x") == 1
    assert names.find("ガラス") == 4
    with pytest.raises(InvalidData, match="the name of two classes"):
        names.class_id("á", "x")


@pytest.mark.parametrize("name", ["labels.csv", "instances.json"])
@pytest.mark.parametrize("kind", ["endless", "huge"])
def test_a_file_without_end_is_refused(folder: Path, tmp_path: Path, name: str, kind: str) -> None:
    labels = tmp_path / name
    if kind == "endless":
        labels.symlink_to("/dev/zero")
    else:
        with labels.open("wb") as sparse:
            sparse.truncate(1 << 40)
    read, why = (classes, "csv") if name.endswith(".csv") else (boxes, "json")
    with pytest.raises(InvalidData, match=rf"{why} (is larger than|does not exist)"):
        read(folder, labels)


def test_rows_of_other_pictures_take_no_memory(folder: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    rows = [f"pictures/of/others/{number}.jpg,{number % 1000}" for number in range(5_000)]
    labels.write_text("\n".join(["file,class_index", "person/a.jpg,2", *rows]))
    size = labels.stat().st_size
    classes(folder, labels)  # pathlib interns names, in a table that grows at any moment
    tracemalloc.start()
    try:
        assert [one.truth for one in classes(folder, labels)] == [2]
        assert tracemalloc.get_traced_memory()[1] < 6 * size
    finally:
        tracemalloc.stop()


def test_a_picture_with_endlessly_many_objects_is_refused(folder: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels"
    labels.mkdir()
    (labels / "a.txt").write_text("".join(f"0 .5 .5 .1 .{n:05}\n" for n in range(1, 10_002)))
    with pytest.raises(InvalidData, match=r"a\.jpg has 10001 labelled objects; .* have 10000"):
        boxes(folder, labels)
