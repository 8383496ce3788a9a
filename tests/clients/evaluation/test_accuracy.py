"""Accuracy of detectors, against the code of others."""

import contextlib
import io

import numpy as np
import pytest
from faster_coco_eval import COCO, COCOeval_faster
from scipy import stats
from visavis.evaluation import matching
from visavis.evaluation.accuracy import detection_accuracy, top_k
from visavis.evaluation.boxes import Boxes, matched, overlap
from visavis.evaluation.matching import SIZES
from visavis.evaluation.statistics import Estimate, resamples

PICTURES, SIDE = 30, 400


def invented(seed: int, crowded: bool = False) -> tuple[list[Boxes], list[Boxes]]:
    """Objects on pictures, and what a detector with some errors finds of them."""
    chance = np.random.default_rng(seed)
    found, truth = [], []
    for _ in range(PICTURES):
        n = int(chance.integers(0, 7))
        corners = chance.uniform(0, SIDE - 130, (n, 2))
        sides = chance.choice([20, 60, 120], (n, 1)) * chance.uniform(0.7, 1.0, (n, 2))
        xyxy = np.hstack([corners, corners + sides])
        ids = chance.integers(0, 4, n)
        crowds = list(chance.random(n) < 0.2) if crowded else []
        truth.append(Boxes.of(np.column_stack([xyxy, ids, np.ones(n)]), crowds))
        kept = chance.random(n) < 0.8
        moved = xyxy[kept] + chance.normal(0, 5, (kept.sum(), 4))
        wrong = chance.uniform(0, SIDE - 60, (2, 2))
        boxes = np.vstack([moved, np.hstack([wrong, wrong + 50])])
        labels = np.concatenate([ids[kept], chance.integers(0, 4, 2)])
        scores = np.round(chance.random(len(boxes)), 3)
        found.append(Boxes.of(np.column_stack([boxes, labels, scores])))
    return found, truth


def second_opinion(found: list[Boxes], truth: list[Boxes]) -> list[float]:
    """Return mAP50-95, mAP50, and that of small, medium and large objects, by other code."""
    evaluated = evaluated_elsewhere(found, truth)
    return [float(evaluated.stats[index]) for index in (0, 1, 3, 4, 5)]


def evaluated_elsewhere(found: list[Boxes], truth: list[Boxes]) -> COCOeval_faster:
    objects = [
        {
            "image_id": i,
            "category_id": int(k) + 1,
            "bbox": [*box[:2], *(box[2:] - box[:2])],
            "area": float(np.prod(box[2:] - box[:2])),
            "iscrowd": int(crowd),
        }
        for i, one in enumerate(truth)
        for box, k, crowd in zip(one.xyxy, one.class_ids, one.crowds, strict=True)
    ]
    for number, one in enumerate(objects, 1):
        one["id"] = number
    results = [
        {
            "image_id": i,
            "category_id": int(k) + 1,
            "bbox": [*box[:2], *(box[2:] - box[:2])],
            "score": float(score),
        }
        for i, one in enumerate(found)
        for box, k, score in zip(one.xyxy, one.class_ids, one.scores, strict=True)
    ]
    images = [{"id": i, "width": SIDE, "height": SIDE} for i in range(len(truth))]
    categories = [{"id": k + 1, "name": str(k)} for k in range(4)]
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO({"images": images, "annotations": objects, "categories": categories})
        evaluated = COCOeval_faster(known, known.loadRes(results), "bbox")
        evaluated.run()
    return evaluated


@pytest.mark.parametrize("crowded", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_average_precision_is_what_another_library_says(seed: int, crowded: bool) -> None:
    found, truth = invented(seed, crowded)
    accuracy = detection_accuracy(found, truth, [(SIDE, SIDE)] * PICTURES)
    figures = [
        accuracy.map50_95.value,
        accuracy.map50.value,
        *(accuracy.of_size(size).value for size in SIZES),
    ]
    assert figures == pytest.approx(second_opinion(found, truth), abs=1e-6)
    assert 0.05 < figures[0] < 0.9


def test_a_class_has_the_precision_that_another_library_says() -> None:
    found, truth = invented(5)
    accuracy = detection_accuracy(found, truth, [(SIDE, SIDE)] * PICTURES)
    # [thresholds, recalls, classes, areas, most boxes]
    precision = evaluated_elsewhere(found, truth).eval["precision"][:, :, :, 0, 2]
    for class_id in accuracy.classes:
        expected = precision[:, :, class_id].mean()
        assert accuracy.of_class(class_id).value == pytest.approx(expected, abs=1e-6)


def test_some_of_the_pictures_have_the_precision_of_a_folder_of_them() -> None:
    found, truth = invented(6, crowded=True)
    accuracy = detection_accuracy(found, truth, [(SIDE, SIDE)] * PICTURES)
    chosen = np.arange(PICTURES) % 3 == 1
    few = ([each[k] for k in np.flatnonzero(chosen)] for each in (found, truth))
    on = accuracy.on(chosen)
    figures = [on.map50_95.value, on.map50.value, *(on.of_size(size).value for size in SIZES)]
    assert figures == pytest.approx(second_opinion(*few), abs=1e-6)


def test_pictures_are_matched_in_parts_as_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found, truth = invented(7, crowded=True)
    whole = detection_accuracy(found, truth, [(SIDE, SIDE)] * PICTURES)
    monkeypatch.setattr(matching, "_PICTURES_AT_ONCE", 4)
    parts = detection_accuracy(found, truth, [(SIDE, SIDE)] * PICTURES)
    assert parts.map50_95.estimate == whole.map50_95.estimate
    assert parts.of_size("small").value == whole.of_size("small").value


def test_a_resample_has_the_precision_of_its_pictures_as_often_as_they_are_drawn() -> None:
    found, truth = invented(8)
    accuracy = detection_accuracy(found, truth, [(SIDE, SIDE)] * PICTURES)
    drawn = np.repeat(np.arange(PICTURES), resamples(PICTURES)[3])
    again = second_opinion([found[k] for k in drawn], [truth[k] for k in drawn])
    assert accuracy.map50_95.resampled[3] == pytest.approx(again[0], abs=1e-6)
    assert accuracy.map50.resampled[3] == pytest.approx(again[1], abs=1e-6)


def test_a_class_on_one_picture_has_no_bounds() -> None:
    truth = [Boxes.of([(0, 0, 50, 50, 1, 1.0)]), *[Boxes.of([(0, 0, 50, 50, 2, 1.0)])] * 9]
    accuracy = detection_accuracy(truth, truth, [(SIDE, SIDE)] * 10)
    assert accuracy.of_class(1).estimate.within(0.0, 1.0) == Estimate(1.0, 0.0, 1.0)
    # Nine pictures without a mistake prove little, too: Wilson's bound for none of nine.
    few = accuracy.of_class(2).estimate
    assert few.low == pytest.approx(1 - stats.binomtest(0, 9).proportion_ci(method="wilson").high)


def test_the_interval_holds_the_figure_and_shrinks_with_more_pictures() -> None:
    found, truth = invented(0)
    sizes = [(SIDE, SIDE)] * PICTURES
    few = detection_accuracy(found[:10], truth[:10], sizes[:10]).map50_95.estimate
    all_ = detection_accuracy(found, truth, sizes).map50_95.estimate
    assert few.low < few.value < few.high
    assert all_.high - all_.low < few.high - few.low


def test_a_model_that_is_better_on_every_picture_is_surely_better() -> None:
    found, truth = invented(1)
    sizes = [(SIDE, SIDE)] * PICTURES
    perfect = detection_accuracy(truth, truth, sizes).map50_95
    assert perfect.value == pytest.approx(1.0)
    assert perfect.minus(detection_accuracy(found, truth, sizes).map50_95).low > 0


def test_nothing_found_is_zero_and_no_object_has_no_figure() -> None:
    _, truth = invented(2)
    nothing = [Boxes.of([])] * PICTURES
    sizes = [(SIDE, SIDE)] * PICTURES
    assert detection_accuracy(nothing, truth, sizes).map50_95.value == 0
    assert np.isnan(detection_accuracy(nothing, nothing, sizes).map50_95.value)


def test_each_object_is_found_once_by_the_best_box_of_its_class() -> None:
    truth = Boxes.of([(0, 0, 10, 10, 1, 1.0), (20, 20, 30, 30, 2, 1.0)])
    found = Boxes.of([(0, 0, 10, 9, 1, 0.5), (0, 0, 10, 10, 1, 0.9), (20, 20, 30, 30, 1, 0.8)])
    right, seen = matched(found, truth)
    assert right.tolist() == [False, True, False]
    assert seen.tolist() == [True, False]


def test_overlap_is_the_shared_area_of_the_joint_area() -> None:
    one = np.array([[0.0, 0, 10, 10]])
    others = np.array([[0.0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30]])
    assert overlap(one, others).tolist() == [[1.0, pytest.approx(1 / 3), 0.0]]


def test_top_k_counts_the_first_k_classes() -> None:
    ranked = [(3, 1, 2), (1, 2, 3)]
    assert top_k(ranked, [1, 1], 1).tolist() == [False, True]
    assert top_k(ranked, [1, 3], 2).tolist() == [True, False]


def a_picture(chance: np.random.Generator) -> tuple[Boxes, Boxes, Boxes]:
    """Objects of two classes, and what a model and a slightly worse one find of them."""
    n = int(chance.integers(1, 5))
    corners = np.array([(130 * (k % 3), 130 * (k // 3)) for k in range(n)], float)
    xyxy = np.hstack([corners, corners + 100])
    ids = chance.integers(0, 2, n)
    # Some pictures are hard for both: so the paired interval has something to gain.
    ease = 0.9 if chance.random() < 0.7 else 0.4
    scores = chance.uniform(0.3, 1.0, n)
    seen = chance.random(n) < ease
    kept = seen & (chance.random(n) < 0.9)
    false = np.array([[250.0, 250, 390, 390, chance.integers(0, 2), chance.uniform(0.1, 0.6)]])
    rows = np.column_stack([xyxy + chance.normal(0, 6, (n, 4)), ids, scores])
    found = [Boxes.of(np.vstack([rows[each], false])) for each in (seen, kept)]
    return Boxes.of(np.column_stack([xyxy, ids, np.ones(n)])), found[0], found[1]


def test_the_interval_of_a_paired_map_covers_the_truth_as_often_as_it_says() -> None:
    """By repeated experiments: folders of 50 pictures, drawn from ever the same world."""
    chance = np.random.default_rng(0)

    def difference(pictures: int) -> Estimate:
        truth, better, worse = zip(*(a_picture(chance) for _ in range(pictures)), strict=True)
        sizes = [(SIDE, SIDE)] * pictures
        figures = (detection_accuracy(one, truth, sizes).map50 for one in (worse, better))
        return next(figures).minus(next(figures))

    # Of many pictures, so that its own error is small.
    expected = difference(1500).value
    assert expected < -0.02
    repetitions = 100
    drawn = [difference(50) for _ in range(repetitions)]
    covered = sum(one.low <= expected <= one.high for one in drawn)
    # By the binomial, 0.95 of 100 is below 0.89 once in 200 times; and not every time.
    assert 0.89 <= covered / repetitions < 1.0
    # Two separate intervals would be wider: what is hard for both cancels out.
    assert np.mean([one.high - one.low for one in drawn]) < 0.25
