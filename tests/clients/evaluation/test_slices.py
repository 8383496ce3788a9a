"""Parts of a folder: which pictures they hold, and what models do on them."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import stats
from visavis.cards import Task
from visavis.dataset.labels import Truth
from visavis.evaluation.answers import ModelRun, PictureAnswers, box_rows
from visavis.evaluation.brightness import brightness
from visavis.evaluation.figures import NOTHING, TaskStudy, chance
from visavis.evaluation.heat import heat
from visavis.evaluation.slices import MOST_FOLDERS, parts, shape
from visavis.evaluation.study import study
from visavis.evaluation.words import chance_sentence

LABELS = ("cat", "dog", "bird")


def model(name: str, task: Task) -> Any:
    labels = SimpleNamespace(name="animals", size=len(LABELS), labels=LABELS)
    defaults = SimpleNamespace(score_threshold=0.25)
    return SimpleNamespace(name=name, tasks=(task,), label_set=labels, detection_defaults=defaults)


def classified(pictures: int, seed: int) -> tuple[list[PictureAnswers], dict[str, int]]:
    """Two classifiers; the second is surely worse in the folder `night`, and else the same."""
    chance_ = np.random.default_rng(seed)
    answers, truths = [], {}
    for number in range(pictures):
        folder = "night" if number % 4 == 0 else "day"
        path, truth = f"{folder}/{number:04}.jpg", int(chance_.integers(3))
        first = truth if chance_.random() < 0.8 else (truth + 1) % 3
        second = (truth + 1) % 3 if folder == "night" and chance_.random() < 0.5 else first
        runs = {"a": ModelRun((first,)), "b": ModelRun((second,))}
        answers.append(PictureAnswers(path, 640, 480, runs))
        truths[path] = truth
    return answers, truths


def of_classifiers(pictures: int, bright: dict[str, float] | None = None) -> TaskStudy:
    answers, truths = classified(pictures, 1)
    models = [model(name, Task.CLASSIFICATION) for name in "ab"]
    (task,) = study(models, answers, {Task.CLASSIFICATION: truths}, brightness=bright).tasks
    return task


def test_a_slice_has_the_figures_of_its_pictures() -> None:
    answers, truths = classified(400, 1)
    (night,) = [one for one in of_classifiers(400).slices if one.name == "night"]
    right = {
        name: [one.runs[name].classes[0] == truths[one.path] for one in answers[::4]]
        for name in "ab"
    }
    assert night.paths == {one.path for one in answers[::4]}
    expected = stats.binomtest(sum(right["a"]), 100).proportion_ci(method="wilson")
    figure = night.figures["a"]
    assert (figure.value, figure.low, figure.high) == pytest.approx(
        (sum(right["a"]) / 100, expected.low, expected.high)
    )
    moved = np.subtract(right["b"], right["a"], dtype=float)
    difference = night.differences["b"]
    low, high = stats.t.interval(0.95, 99, moved.mean(), stats.sem(moved))
    assert difference.value == pytest.approx(moved.mean())
    assert (difference.low, difference.high) == pytest.approx((low, high), abs=0.02)
    assert difference.verdict.value == "worse"


def test_a_slice_without_a_change_cannot_be_told_and_few_pictures_are_said_to_be_few() -> None:
    of = {one.name: one for one in of_classifiers(100).slices}
    assert of["day"].differences["b"].verdict.value == "can't tell"
    assert (len(of["night"].paths), of["night"].few, of["day"].few) == (25, True, False)


def test_classes_are_slices_of_their_own() -> None:
    answers, truths = classified(400, 1)
    classes = [one for one in of_classifiers(400).slices if one.dimension == "class"]
    assert [one.name for one in classes] == list(LABELS)
    for class_id, one in enumerate(classes):
        own = [each for each in answers if truths[each.path] == class_id]
        right = sum(each.runs["b"].classes[0] == class_id for each in own)
        assert one.figures["b"].value == pytest.approx(right / len(own))


def test_how_many_differences_would_be_by_chance_is_said() -> None:
    task = of_classifiers(400)
    all_ = chance(task)
    assert (all_.tested, all_.by_chance) == (5, pytest.approx(0.25))  # three classes, two folders
    assert chance_sentence(task).startswith(f"5 differences by slice were tested: {all_.told} ")
    assert chance_sentence(task).endswith(
        "up to 0.2 would by chance alone if the models were equal."
    )
    assert chance_sentence(replace(task, slices=())) == ""


def test_equal_models_are_told_apart_no_oftener_than_by_chance() -> None:
    """Of thirty folders of two equal models on coins, about one in twenty, in many repetitions."""
    told = tested = 0
    models = [model(name, Task.CLASSIFICATION) for name in "ab"]
    for seed in range(12):
        coins = np.random.default_rng(seed)
        answers = [
            PictureAnswers(
                f"{number % 30:02}/{number}.jpg",
                64,
                64,
                {name: ModelRun((int(coins.random() < 0.3),)) for name in "ab"},
            )
            for number in range(1200)
        ]
        truths = {Task.CLASSIFICATION: {one.path: 0 for one in answers}}
        (task,) = study(models, answers, truths).tasks
        folders = [one for one in task.slices if one.dimension == "folder"]
        tested += len(folders)
        told += sum(one.differences["b"].verdict.value != "can't tell" for one in folders)
    # By the binomial, 5 % of 360 are seldom below 8 or above 30.
    assert tested == 360
    assert 8 <= told <= 30


def detected(pictures: int) -> tuple[list[PictureAnswers], dict[str, tuple[Truth, ...]]]:
    """A cat and a small dog on each; `b` misses the dogs of wide pictures, and calls cats birds."""
    answers, truths = [], {}
    for number in range(pictures):
        width = 400 if number % 2 else 120
        path = f"{number:03}.jpg"
        cat, dog = (10, 10, 110, 110, 0, 0.9), (60, 60, 80, 80, 1, 0.8)
        bird = (*cat[:4], 2, 0.9)
        runs = {
            "a": ModelRun(boxes=box_rows([cat, dog])),
            "b": ModelRun(boxes=box_rows([bird] if number % 2 else [cat, dog])),
        }
        answers.append(PictureAnswers(path, width, 120, runs))
        truths[path] = tuple(
            Truth(k, (x + r) / 2 / width, (y + b) / 240, (r - x) / width, (b - y) / 120)
            for x, y, r, b, k, _ in (cat, dog)
        )
    return answers, truths


def of_detectors(pictures: int = 40) -> TaskStudy:
    answers, truths = detected(pictures)
    models = [model(name, Task.DETECTION) for name in "ab"]
    (task,) = study(models, answers, {Task.DETECTION: truths}).tasks
    return task


def test_detectors_have_slices_of_objects_and_of_pictures() -> None:
    of = {(one.dimension, one.name): one for one in of_detectors().slices}
    assert set(of) == {
        *(("class", name) for name in ("cat", "dog")),
        *(("size", size) for size in ("small", "large")),
        *(("shape", name) for name in ("square", "elongated")),
    }
    assert of["shape", "square"].figures["b"].value == pytest.approx(1.0)
    assert of["shape", "square"].differences["b"].value == 0.0
    assert of["shape", "elongated"].figures["b"].value == pytest.approx(0.0)
    assert of["shape", "elongated"].differences["b"].verdict.value == "worse"
    # Half of all dogs are found and nothing else is called so: precision 1 up to recall 0.5.
    assert of["class", "dog"].figures["b"].value == pytest.approx(51 / 101)
    assert of["size", "small"].figures["a"].value == pytest.approx(1.0)
    assert len(of["size", "small"].paths) == 40


def test_a_confusion_matrix_sums_up_to_objects_and_boxes() -> None:
    one = of_detectors().models[1]
    assert one.matrix == {
        ("cat", "cat"): 20,
        ("cat", "bird"): 20,
        ("dog", "dog"): 20,
        ("dog", NOTHING): 20,
    }
    objects, boxes = Counter[str](), Counter[str]()
    for (truth, answer), count in one.matrix.items():
        objects[truth] += count
        boxes[answer] += count
    assert (objects["cat"], objects["dog"], boxes["bird"]) == (40, 40, 20)
    assert [(c.truth, c.answer, c.pictures) for c in one.confusions] == [("cat", "bird", 20)]


def test_the_heat_map_shows_what_is_confused_most() -> None:
    first, second = of_detectors().models
    assert heat(first) is None
    shown = heat(second)
    assert shown is not None
    assert shown.classes == ["bird", "cat", "dog", NOTHING]
    cells = {
        (truth, answer): cell
        for truth, row in shown.rows
        for answer, cell in zip(shown.classes, row, strict=True)
    }
    assert (cells["cat", "bird"].cell.text, cells["cat", "bird"].shade) == ("20", 8)
    assert (cells["cat", "cat"].cell.text, cells["cat", "cat"].right) == ("20", True)


def test_facts_lead_to_the_pictures_of_each_figure() -> None:
    task = of_detectors()
    kinds = Counter(fact.kind for one in task.disagreements for fact in one.facts)
    # b loses a cat and a dog on each of twenty pictures, and has a bird for each cat.
    assert kinds == {"broke": 40, "class": 20, "missed": 20, "here": 20, "baseline": 40}
    (pair,) = task.pairs
    assert pair.changes is not None
    assert (pair.changes.fixed, pair.changes.broke) == (0, 40)


def test_only_the_largest_folders_are_told_apart() -> None:
    answers = [
        PictureAnswers(f"{k:03}/{number}.jpg", 64, 64, {})
        for k in range(MOST_FOLDERS + 5)
        for number in range(1 + (k >= 5))
    ]
    found = parts(answers, {})
    assert found.folders_left_out == 5
    assert {part.name for part in found.parts} == {f"{k:03}" for k in range(5, MOST_FOLDERS + 5)}


@pytest.mark.parametrize(
    ("size", "word"),
    [
        ((100, 100), "square"),
        ((110, 100), "square"),
        ((111, 100), "landscape"),
        ((100, 120), "portrait"),
        ((200, 100), "landscape"),
        ((201, 100), "elongated"),
        ((100, 201), "elongated"),
        ((0, 0), "square"),
    ],
)
def test_a_picture_has_a_shape(size: tuple[int, int], word: str) -> None:
    assert shape(*size) == word


def test_brightness_is_the_mean_luma_and_what_cannot_be_decoded_has_none(tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("dark.png", "bright.jpg", "none.jpg", "gone.jpg")}
    Image.new("RGB", (50, 40), (10, 20, 30)).save(files["dark.png"])
    pixels = np.random.default_rng(0).integers(150, 250, (300, 400, 3), np.uint8)
    Image.fromarray(pixels).resize((1600, 1200)).save(files["bright.jpg"], quality=95)
    files["none.jpg"].write_bytes(b"no picture")
    found = brightness(files)
    assert found["dark.png"] == pytest.approx(0.299 * 10 + 0.587 * 20 + 0.114 * 30, abs=1)
    assert found["bright.jpg"] == pytest.approx(pixels.mean(), abs=2)
    assert set(found) == {"dark.png", "bright.jpg"}
    task = of_classifiers(100, {"night/0000.jpg": 20.0, "day/0001.jpg": 200.0})
    names = {one.name for one in task.slices if one.dimension == "brightness"}
    assert names == {"dark", "bright"}


def test_slices_hold_the_pictures_whose_truth_is_known() -> None:
    answers, truths = classified(80, 3)
    truths = {path: one for path, one in truths.items() if int(path[-8:-4]) < 40}
    models = [model(name, Task.CLASSIFICATION) for name in "ab"]
    (task,) = study(models, answers, {Task.CLASSIFICATION: truths}).tasks
    sizes = {one.name: len(one.paths) for one in task.slices if one.dimension == "folder"}
    assert sizes == {"night": 10, "day": 30}
