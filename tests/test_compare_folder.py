"""`visavis compare` of a folder, from the command to its files, with models made by hand."""

import ast
import contextlib
import csv
import errno
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy import stats
from visavis.bench.own_server import own_server
from visavis.commands import main
from visavis.evaluation.answers import AnswersFile

from tests.server import graphs
from tests.server.pictures import BLUE, GREEN, RED, block, entry, plain, with_exif
from visavis_server.card import LabelSet

SCHEMA = json.loads((Path(__file__).parents[1] / "docs/compare.schema.json").read_text())
# Ten of each colour; two reds are labelled wrongly.
COLORS = [RED] * 10 + [GREEN] * 10 + [BLUE] * 10


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """colors, which is right; inverted, which is wrong; boxes and other-boxes, which differ."""
    folder = tmp_path_factory.mktemp("compared")
    for name, gain in (("colors", 10.0), ("inverted", -10.0)):
        contents, _ = graphs.export(graphs.classifier(gain), graphs.classifier_document())
        graphs.put(folder, name, 1, contents)
    moved = graphs.ROWS.copy()
    moved[..., 0] += 40
    for name, rows in (("boxes", graphs.ROWS), ("other-boxes", moved)):
        contents, _ = graphs.export(graphs.constant(rows), graphs.detector_document())
        graphs.put(folder, name, 1, contents)
    return folder


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[str]:
    """The address of a server of these models: one for all tests that need no other."""
    with own_server(models) as started:
        yield started.address


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    rows = ["file,class_index"]
    for index, color in enumerate(COLORS):
        name = f"{index:02}.png"
        (folder / name).write_bytes(plain(color))
        rows.append(f"{name},{COLORS.index(color) // 10 if index > 1 else 1}")
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder


def _less(fields: dict[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}


def compare(*arguments: object) -> int:
    return main(["compare", *map(str, arguments)])


def test_a_folder_is_counted_held_to_limits_and_reported(
    models: Path, server: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ends = ("json", "csv", "slices.csv", "confusion.csv", "md", "xml", "html", "jsonl")
    out = {end: tmp_path / f"out.{end}" for end in ends}
    code = compare(
        pictures, "--repository", models, "--models", "colors,inverted",
        "--json", out["json"], "--csv", out["csv"], "--markdown", out["md"], "--junit", out["xml"],
        "--report", out["html"], "--answers", out["jsonl"], "--cost", "0.5",
        "--csv-slices", out["slices.csv"], "--csv-confusion", out["confusion.csv"],
        "--fail-under", "top1=0.5", "agreement=0.0",
    )  # fmt: skip
    assert code == 1  # inverted is surely below a half
    said = capsys.readouterr().out
    assert "inverted" in said
    assert "loses 86.7 points of top-1 on 30 pictures" in said
    assert "failed: inverted: top1 is 0.067" in said
    data = json.loads(out["json"].read_text())
    jsonschema.validate(data, SCHEMA)
    figures = {one["model"]: one for one in data["models"]}
    assert figures["colors"]["top1"]["value"] == pytest.approx(28 / 30)
    assert figures["inverted"]["top1"]["value"] == pytest.approx(2 / 30)
    assert figures["colors"]["confusions"] == [{"truth": "green", "answer": "red", "pictures": 2}]
    latency, cost = figures["colors"]["latency_ms"], figures["colors"]["cost"]
    assert latency["p50"] > latency["stages"]["decode"]["p50"] > 0
    assert cost["pictures_per_s"] > 0 < cost["cpu_ms_per_picture"]
    assert 20e6 < cost["memory_bytes"] < 2e9
    assert figures["inverted"]["dominated_by"] in ([], ["colors"])
    classes, cells = figures["colors"]["confusion_matrix"].values()
    named = {(classes[truth], classes[answer]): count for truth, answer, count in cells}
    diagonal = {("red", "red"): 8, ("green", "green"): 10, ("blue", "blue"): 10}
    assert named == {**diagonal, ("green", "red"): 2}
    slices = {(one["dimension"], one["slice"]): one for one in data["slices"]}
    red = slices["class", "red"]
    assert (red["pictures"], red["few"], red["models"]["colors"]["value"]) == (8, True, 1.0)
    assert red["differences"]["inverted"]["difference"] == -1.0
    assert {name for dimension, name in slices if dimension == "brightness"} == {"dark", "medium"}
    (told,) = data["slice_differences"]
    assert told["tested"] == len(data["slices"])
    assert "class,green,12,top1,colors,0.833" in out["slices.csv"].read_text()
    assert "colors,green,red,2\n" in out["confusion.csv"].read_text()
    (pair,) = data["pairs"]
    assert (pair["fixed"], pair["broke"], pair["agreement"]) == (2, 28, 0.0)
    assert pair["verdict"] == "worse"
    assert pair["difference"] == pytest.approx(-26 / 30)
    assert pair["low"] < pair["difference"] < pair["high"] < 0
    assert {one["outcome"] for one in data["checks"]} == {"passed", "failed"}
    assert "inverted,1,fp32" in out["csv"].read_text()
    assert "| inverted |" in out["md"].read_text()
    suite = ElementTree.parse(out["xml"]).getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("3", "1")
    page = out["html"].read_text()
    assert page.count("<figure") == 30
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page
    # The same again asks nothing: the answers are there.
    before = out["jsonl"].read_bytes()
    again = ("--server", server, "--models", "colors,inverted", "--answers", out["jsonl"])
    assert compare(pictures, *again, "--json", out["json"]) == 0
    assert out["jsonl"].read_bytes() == before
    without = [
        {k: v for k, v in one.items() if k not in ("cost", "dominated_by")}
        for one in data["models"]
    ]
    again = json.loads(out["json"].read_text())["models"]
    assert [{k: v for k, v in one.items() if k != "dominated_by"} for one in again] == without


def test_detectors_are_compared_by_their_boxes_without_truth(
    server: str, pictures: Path, tmp_path: Path
) -> None:
    file = tmp_path / "out.json"
    arguments = ("--server", server, "--tasks", "detection", "--json", file)
    assert compare(pictures, *arguments) == 0
    data = json.loads(file.read_text())
    jsonschema.validate(data, SCHEMA)
    (pair,) = data["pairs"]
    assert {pair["model"], pair["baseline"]} == {"boxes", "other-boxes"}
    assert pair["agreement"] < 1
    assert "difference" not in pair


def test_detectors_are_measured_against_truth_and_at_thresholds(
    server: str, pictures: Path, tmp_path: Path
) -> None:
    """The truth is what one of both finds: it is perfect, and the other is not."""
    answers, file, labels = tmp_path / "a.jsonl", tmp_path / "out.json", tmp_path / "coco.json"
    asked = (pictures, "--server", server, "--models", "boxes,other-boxes")
    assert compare(*asked, "--answers", answers) == 0
    lines = [json.loads(line) for line in answers.read_text().splitlines()[1:]]
    images = [
        {"id": i, "file_name": one["path"], "width": one["size"][0], "height": one["size"][1]}
        for i, one in enumerate(lines)
    ]
    objects = [
        {"id": 1, "image_id": i, "category_id": int(k), "bbox": [x, y, right - x, bottom - y]}
        for i, one in enumerate(lines)
        for x, y, right, bottom, k, score in one["runs"]["boxes"]["boxes"]
        if score >= 0.25
    ]
    names = graphs.detector_document().label_set.labels
    categories = [{"id": k, "name": name} for k, name in enumerate(names)]
    labels.write_text(
        json.dumps({"images": images, "annotations": objects, "categories": categories})
    )
    assert compare(*asked, "--answers", answers, "--labels", labels, "--json", file) == 0
    data = json.loads(file.read_text())
    jsonschema.validate(data, SCHEMA)
    figures = {one["model"]: one for one in data["models"]}
    assert figures["boxes"]["map50_95"]["value"] == pytest.approx(1.0)
    assert figures["boxes"]["operating"]["f1"] == 1.0
    assert figures["other-boxes"]["operating"]["f1"] < 1.0
    (pair,) = data["pairs"]
    assert pair["verdict"] == "worse"
    assert pair["broke"] > pair["fixed"] == 0
    both = ("--labels", pictures / "labels.csv", "--labels", labels)
    more = (pictures, "--server", server, "--models", "boxes,colors")
    assert compare(*more, *both, "--json", file) == 0
    figures = {one["model"]: one for one in json.loads(file.read_text())["models"]}
    assert figures["boxes"]["map50_95"]["value"] == pytest.approx(1.0)
    assert figures["colors"]["top1"]["value"] == pytest.approx(28 / 30)
    assert compare(*more, "--labels", labels, "--labels", labels) == 2


def test_the_figures_are_those_that_others_compute_from_the_same_answers(
    server: str, pictures: Path, tmp_path: Path
) -> None:
    """pycocotools from the kept answers, SciPy, and arithmetic."""
    answers, file, labels = tmp_path / "a.jsonl", tmp_path / "out.json", tmp_path / "coco.json"
    asked = (pictures, "--server", server, "--models", "colors,inverted,boxes,other-boxes")
    assert compare(*asked, "--answers", answers, "--json", file) == 0
    of_classes = json.loads(file.read_text())
    lines = [json.loads(line) for line in answers.read_text().splitlines()[1:]]
    lines.sort(key=lambda one: one["path"])  # equal scores count in the pictures' order
    chance = np.random.default_rng(0)
    truth = _moved_boxes(lines, chance)
    labels.write_text(json.dumps(truth))
    assert compare(*asked, "--answers", answers, "--labels", labels, "--json", file) == 0
    of_boxes = json.loads(file.read_text())

    for name in ("boxes", "other-boxes"):
        (figures,) = [one for one in of_boxes["models"] if one["model"] == name]
        expected = _by_pycocotools(truth, lines, name)
        assert figures["map50_95"]["value"] == pytest.approx(expected[0], abs=1e-6)
        assert figures["map50"]["value"] == pytest.approx(expected[1], abs=1e-6)
        if name == "boxes":
            assert 0.1 < expected[0] < expected[1] < 0.9

    wanted = dict(csv.reader((pictures / "labels.csv").read_text().splitlines()))
    right = {
        name: [one["runs"][name]["classes"][0] == int(wanted[one["path"]]) for one in lines]
        for name in ("colors", "inverted")
    }
    for name, own in right.items():
        (figures,) = [one for one in of_classes["models"] if one["model"] == name]
        interval = stats.binomtest(sum(own), len(own)).proportion_ci(method="wilson")
        assert figures["top1"] == pytest.approx(
            {"value": sum(own) / len(own), "low": interval.low, "high": interval.high}, abs=1e-9
        )
    (pair,) = [one for one in of_classes["pairs"] if one["model"] == "inverted"]
    fixed = sum(b and not a for a, b in zip(*right.values(), strict=True))
    broke = sum(a and not b for a, b in zip(*right.values(), strict=True))
    assert (pair["fixed"], pair["broke"]) == (fixed, broke)
    assert pair["p_value"] == pytest.approx(stats.binomtest(fixed, fixed + broke).pvalue, rel=1e-9)


def _moved_boxes(lines: list[dict[str, Any]], chance: np.random.Generator) -> dict[str, Any]:
    """Return COCO's truth: the first model's boxes, each moved, and some of them missing."""
    objects = []
    for i, one in enumerate(lines):
        for x, y, right, bottom, k, _ in one["runs"]["boxes"]["boxes"]:
            if chance.random() < 0.8:
                (dx, dy), width, height = chance.normal(0, 2, 2), right - x, bottom - y
                box = [x + dx, y + dy, width, height]
                number = len(objects) + 1
                objects.append(
                    {
                        "id": number,
                        "image_id": i,
                        "category_id": int(k),
                        "bbox": box,
                        "area": width * height,
                        "iscrowd": 0,
                    }
                )
    names = graphs.detector_document().label_set.labels
    return {
        "images": [
            {"id": i, "file_name": one["path"], "width": one["size"][0], "height": one["size"][1]}
            for i, one in enumerate(lines)
        ],
        "annotations": objects,
        "categories": [{"id": k, "name": name} for k, name in enumerate(names)],
    }


def _by_pycocotools(
    truth: dict[str, Any], lines: list[dict[str, Any]], model: str
) -> tuple[float, float]:
    """Return mAP50-95 and mAP50 of the kept answers."""
    results = [
        {
            "image_id": i,
            "category_id": int(k),
            "bbox": [x, y, right - x, bottom - y],
            "score": score,
        }
        for i, one in enumerate(lines)
        for x, y, right, bottom, k, score in one["runs"][model]["boxes"]
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = truth
        known.createIndex()
        evaluated = COCOeval(known, known.loadRes(results), "bbox")
        evaluated.evaluate()
        evaluated.accumulate()
        evaluated.summarize()
    return float(evaluated.stats[0]), float(evaluated.stats[1])


def test_models_of_other_label_sets_are_compared_by_name(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second model calls its classes otherwise, in another order, and knows no blue."""
    folder, file = tmp_path / "models", tmp_path / "out.json"
    contents, _ = graphs.export(graphs.classifier(), graphs.classifier_document())
    graphs.put(folder, "colors", 1, contents)
    other = LabelSet(name="other-colors", labels=("Red", "GREEN", "violet"))
    document = graphs.classifier_document(label_set=other)
    contents, _ = graphs.export(graphs.classifier(), document)
    graphs.put(folder, "others", 1, contents)
    # The ids of labels.csv are those of one of them; nothing says of which.
    assert compare(pictures, "--repository", folder) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "the labels have class ids, and the class ids of colors (three-colors)" in said
    named = ("--repository", folder, "--models", "colors,others", "--json", file)
    assert compare(pictures, *named) == 0
    assert "are read as those of colors" in " ".join(capsys.readouterr().err.split())
    data = json.loads(file.read_text())
    figures = {one["model"]: one for one in data["models"]}
    assert figures["colors"]["top1"]["value"] == pytest.approx(28 / 30)
    # Ten blue pictures do not count; two of the twenty others are labelled wrongly.
    assert figures["others"]["top1"]["value"] == pytest.approx(18 / 20)
    (pair,) = data["pairs"]
    assert (pair["unknown_classes"], pair["agreement"]) == (2, 1.0)
    assert (pair["fixed"], pair["broke"], pair["difference"]) == (0, 0, 0.0)


def test_labels_of_strangers_are_text_in_the_report(server: str, tmp_path: Path) -> None:
    folder = tmp_path / "<script>alert(1)"
    folder.mkdir()
    (folder / "<img src=x onerror=alert(2)>.png").write_bytes(plain(RED))
    report = tmp_path / "report.html"
    arguments = ("--server", server, "--models", "colors,inverted", "--report", report)
    assert compare(folder, *arguments) == 0
    page = report.read_text()
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(2)&gt;.png" in page


def test_a_picture_of_any_name_is_drawn_as_the_server_turns_it(server: str, tmp_path: Path) -> None:
    folder, report = tmp_path / "turned", tmp_path / "report.html"
    folder.mkdir()
    turned = with_exif("JPEG", block(entry(6, kind=1)))  # of type BYTE; 20 x 10 pixels as stored
    (folder / os.fsdecode(b"caf\xe9.jpg")).write_bytes(turned)
    arguments = ("--server", server, "--models", "boxes,other-boxes", "--report", report)
    assert compare(folder, *arguments) == 0
    page = report.read_text()
    assert "<b>caf\\udce9.jpg</b>" in page
    assert 'viewBox="0 0 10 20"' in page
    assert 'viewBox="0 0 20 10"' not in page


def test_kept_answers_are_those_of_models_in_any_order(
    server: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = tmp_path / "answers.jsonl"
    arguments = (pictures, "--server", server, "--answers", answers, "--models")
    assert compare(*arguments, "colors,inverted") == 0
    before = answers.read_bytes()
    assert compare(*arguments, "inverted,colors") == 0
    assert answers.read_bytes() == before
    capsys.readouterr()
    for others in ("colors", "colors,inverted,boxes"):
        assert compare(*arguments, others) == 2
        said = capsys.readouterr().err
        assert "holds the answers of other models" in said
        assert "goes on from there" not in said


def test_few_pictures_cannot_tell_and_only_strict_fails(
    server: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    eight = tmp_path / "eight"
    eight.mkdir()
    for path in sorted(pictures.glob("*.png"))[10:18]:
        (eight / path.name).write_bytes(path.read_bytes())
    labels = pictures / "labels.csv"
    (eight / "labels.csv").write_text(labels.read_text())
    limit = (eight, "--server", server, "--models", "colors", "--fail-under", "top1=0.9")
    assert compare(*limit) == 0
    assert "can't tell: colors: top1 is 1.000" in capsys.readouterr().out
    assert compare(*limit, "--strict") == 1


def test_a_limit_is_not_kept_by_a_model_that_does_not_answer(
    server: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers, suite = tmp_path / "answers.jsonl", tmp_path / "limits.xml"
    asked = (
        pictures, "--server", server, "--models", "colors,inverted", "--answers", answers,
        "--fail-under", "agreement=0", "--junit", suite,
    )  # fmt: skip
    assert compare(*asked) == 0
    heading, *lines = map(json.loads, answers.read_text().splitlines())

    def fail(count: int) -> None:
        for line in lines[:count]:
            line["runs"]["inverted"] = {"failure": "INTERNAL: the peer is broken"}
        answers.write_text("".join(json.dumps(one) + "\n" for one in (heading, *lines)))

    fail(1)
    assert compare(*asked) == 0
    said = capsys.readouterr()
    assert "can't tell: inverted: agreement is" in said.out
    assert "the peer is broken" in said.err
    assert ElementTree.parse(suite).getroot().get("skipped") == "1"
    assert compare(*asked, "--strict") == 1
    assert ElementTree.parse(suite).getroot().get("failures") == "1"
    fail(30)
    assert compare(*asked) == 2
    said = capsys.readouterr()
    assert "inverted answered no picture, so that no limit holds it" in " ".join(said.err.split())


def test_a_drop_since_an_earlier_comparison_fails(
    server: str, pictures: Path, tmp_path: Path
) -> None:
    before, swapped = tmp_path / "before.json", tmp_path / "swapped"
    arguments = (pictures, "--models", "colors")
    assert compare(*arguments, "--server", server, "--json", before) == 0
    contents, _ = graphs.export(graphs.classifier(-10.0), graphs.classifier_document())
    graphs.put(swapped, "colors", 1, contents)
    drop = ("--baseline", before, "--max-drop", "top1=0.05")
    assert compare(*arguments, "--server", server, *drop) == 0
    assert compare(*arguments, "--repository", swapped, *drop) == 1


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--fail-under", "top1=2"], "from 0 to 1"),
        (["--max-drop", "top1=0.1"], "--max-drop needs --baseline FILE.json"),
        (["--models", "nobody"], "has no model 'nobody'"),
        (["--fail-under", "map=0.3", "--models", "colors"], "nothing was measured"),
        (["--models", "colors", "--labels", "typo.csv"], "--labels typo.csv does not exist"),
        (["--models", "colors", "--score-threshold", "0.5"], "no effect on the figures"),
        (["--json", "no/such/folder.json", "--models", "colors"], "can't write no/such"),
        (["--answers", "/dev/null/a.jsonl"], "/dev/null: File exists"),
    ],
)
def test_what_cannot_be_done_ends_with_2(
    server: str,
    pictures: Path,
    arguments: list[str],
    why: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert compare(pictures, "--server", server, *arguments) == 2
    assert why in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--report", "no/such/report.html"], "can't write no/such/report.html"),
        (["--markdown", "."], "can't write ."),
        (["--fiftyone", "/dev/null/folder"], "can't write to /dev/null/folder"),
        (["--labels", "typo.csv"], "--labels typo.csv does not exist"),
        (["--baseline", "typo.json"], "can't read typo.json"),
    ],
)
def test_files_are_tried_before_a_server_is_asked(
    pictures: Path, arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = "127.0.0.1:1"
    assert compare(pictures, "--server", nowhere, *arguments) == 2
    said = capsys.readouterr().err
    assert why in said
    assert nowhere not in said


def test_a_picture_that_cannot_be_decoded_is_named_and_the_others_count(
    server: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "29.png").write_bytes(np.zeros(100, np.uint8).tobytes())
    file = tmp_path / "out.json"
    assert compare(pictures, "--server", server, "--models", "colors", "--json", file) == 0
    data = json.loads(file.read_text())
    assert list(data["failures"]) == ["29.png"]
    assert data["models"][0]["pictures"] == 29
    assert "29.png" in capsys.readouterr().err


def test_boxes_for_a_picture_of_another_shape_are_refused_before_any_work(
    pictures: Path, server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, other = graphs.detector_document().label_set.labels[0], "unicorn"
    image = {"id": 1, "file_name": "00.png", "width": 64, "height": 64}
    labels = tmp_path / "coco.json"
    data = {
        "images": [image],
        "annotations": [
            {"id": k, "image_id": 1, "category_id": k, "bbox": [1, 1, 9, 9]} for k in (1, 2)
        ],
        "categories": [{"id": 1, "name": name}, {"id": 2, "name": other}],
    }
    labels.write_text(json.dumps(data))
    arguments = (pictures, "--server", server, "--models", "boxes", "--labels", labels)
    assert compare(*arguments) == 0
    assert "Objects of classes that boxes lacks do not count: 'unicorn' (1)." in " ".join(
        capsys.readouterr().err.split()
    )
    image["height"] = 48
    labels.write_text(json.dumps(data))
    assert compare(*arguments) == 2
    said = capsys.readouterr().err
    assert "00.png is 64 × 64 px upright, but its labels are for 64 × 48 px" in said
    assert "per second" not in said


def test_a_comparison_that_a_full_disk_ends_says_how_to_go_on(
    server: str,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(AnswersFile, "append", full)
    answers = tmp_path / "answers.jsonl"
    arguments = (pictures, "--server", server, "--models", "colors", "--answers", answers)
    assert compare(*arguments) == 2
    said = capsys.readouterr().err
    assert "No space left on device; free some space" in said
    assert f"The answers so far are in {answers}: the same command goes on from there." in said


def test_nothing_is_compared_where_no_picture_is_answered(
    server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As of a repository whose large files were not fetched: no limit is kept by that."""
    folder = tmp_path / "pointers"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg"):
        (folder / name).write_text("version https://git-lfs.github.com/spec/v1\n")
    limits = ("--fail-under", "agreement=0.5")
    assert compare(folder, "--server", server, "--models", "colors,inverted", *limits) == 2
    out, err = capsys.readouterr()
    assert "nan" not in out
    assert "none of the pictures is answered (2): a.jpg: the image is a pointer of Git LFS" in err


def test_patterns_and_lists_are_folders_of_other_names(
    server: str, pictures: Path, tmp_path: Path
) -> None:
    file, listed = tmp_path / "out.json", tmp_path / "listed.txt"
    asked = ("--server", server, "--models", "colors", "--labels", pictures / "labels.csv")
    assert compare(f"{pictures}/0?.png", *asked, "--json", file) == 0
    assert json.loads(file.read_text())["models"][0]["top1"]["value"] == pytest.approx(8 / 10)
    listed.write_text("".join(f"pictures/{number}.png\n" for number in range(10, 15)))
    assert compare(listed, pictures, *asked, "--json", file) == 0
    assert json.loads(file.read_text())["pictures"] == 30


def test_a_comparison_is_written_as_fiftyones_importers_read_it(
    server: str, pictures: Path, tmp_path: Path
) -> None:
    """The formats: docs.voxel51.com, FiftyOneImageClassificationDataset and …Detection…."""
    folder = tmp_path / "fiftyone"
    asked = ("--server", server, "--models", "colors,inverted,boxes", "--fiftyone", folder)
    assert compare(pictures, *asked) == 0
    data = json.loads((folder / "data.json").read_text())
    assert len(data) == 30
    assert all(Path(path).is_file() for path in data.values())
    by_path = {Path(path).name: key for key, path in data.items()}
    fields = {one["field"]: one for one in json.loads((folder / "fields.json").read_text())}
    assert set(fields) == {
        "truth_classification",
        "colors_classification",
        "inverted_classification",
        "boxes_detection",
    }

    def labels(field: str) -> dict[str, Any]:
        return json.loads((folder / fields[field]["labels"]).read_text())["labels"]

    assert labels("truth_classification")[by_path["00.png"]] == "green"
    assert labels("colors_classification")[by_path["00.png"]] == "red"
    (box, *_) = labels("boxes_detection")[by_path["00.png"]]
    assert set(box) == {"label", "bounding_box", "confidence"}
    assert all(0 <= edge <= 1 for edge in box["bounding_box"])
    tags = json.loads((folder / "tags.json").read_text())
    assert "wrong: colors" in tags[by_path["00.png"]]
    ast.parse((folder / "open.py").read_text())


def test_cost_is_measured_only_where_the_command_serves_the_models(
    server: str, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(pictures, "--server", server, "--cost", "1") == 2
    assert "--cost needs --repository" in capsys.readouterr().err
