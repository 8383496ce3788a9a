"""Which answers a receipt accepts, which ties it tolerates, and which differences fail it."""

import numpy as np
import pytest
import torchvision

from visavis_export.families.original import Candidates, Found
from visavis_export.families.yolov5 import Place, _Seen, unletterbox
from visavis_export.proof.receipt import EXACT, match
from visavis_export.proof.suppression import find_difference

BOX = [100.0, 100.0, 200.0, 200.0]
BESIDE = [300.0, 100.0, 400.0, 200.0]
# Overlaps BOX by 0.6, more than the threshold of 0.45.
OVER = [125.0, 100.0, 225.0, 200.0]


def seen(*rows: tuple[list[float], float, int, float]) -> _Seen:
    """Return an original's output, given (box, score, class, second-best class's score)."""
    boxes, scores, class_ids, second = zip(*rows, strict=True)
    candidates = Candidates(
        np.array(boxes, np.float32),
        np.array(scores, np.float32),
        np.array(class_ids, np.int64),
        np.array(second, np.float32),
        np.array(class_ids, np.int64) + 1,
    )
    return _Seen(candidates, Place(8000, 8000, 8000), unletterbox)


def found(*rows: tuple[list[float], float, int]) -> Found:
    boxes, scores, class_ids = zip(*rows, strict=True) if rows else ([], [], [])
    return Found(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(class_ids, np.int64),
    )


def difference(original: _Seen, ours: Found, moved: float = 1e-4) -> str | None:
    everywhere = np.full(len(original.candidates.scores), moved, np.float32)
    steps = EXACT.score, EXACT.candidate_box_px, EXACT.box_px
    return find_difference(ours, ours.boxes, original, (0.25, 0.45), steps, everywhere)


def test_equal_answers_are_right() -> None:
    assert difference(seen((BOX, 0.9, 0, 0.1)), found((BOX, 0.9, 0))) is None


@pytest.mark.parametrize(
    "ours",
    [
        found(),
        found((BOX, 0.9, 1)),
        found((BOX, 0.902, 0)),
        found(([102.0, 100.0, 200.0, 200.0], 0.9, 0)),
        found((BOX, 0.9, 0), (BESIDE, 0.9, 0)),
        found((BOX, 0.9, 0), (BOX, 0.9, 0)),
    ],
    ids=["missing", "other label", "score off by 0.002", "edge off by 2 px", "one more", "twice"],
)
def test_a_real_difference_is_found(ours: Found) -> None:
    reported = difference(seen((BOX, 0.9, 0, 0.1)), ours) or ""
    assert "is not among PyTorch's candidates" in reported or "is missing" in reported


def test_a_score_at_the_threshold_may_fall_either_way() -> None:
    original = seen((BOX, 0.9, 0, 0.1), (BESIDE, 0.2503, 0, 0.1))
    assert difference(original, found((BOX, 0.9, 0))) is None
    assert difference(original, found((BOX, 0.9, 0), (BESIDE, 0.2503, 0))) is None


def test_a_score_clear_of_the_threshold_may_not() -> None:
    original = seen((BOX, 0.9, 0, 0.1), (BESIDE, 0.2530, 0, 0.1))
    assert "is missing: no kept box" in (difference(original, found((BOX, 0.9, 0))) or "")


def test_a_tie_between_overlapping_boxes_may_fall_either_way() -> None:
    original = seen((BOX, 0.9000, 0, 0.1), (OVER, 0.8999, 0, 0.1))
    assert difference(original, found((BOX, 0.9000, 0))) is None
    assert difference(original, found((OVER, 0.8999, 0))) is None


def test_the_lower_of_two_may_not_be_kept_instead_of_the_higher() -> None:
    original = seen((BOX, 0.90, 0, 0.1), (OVER, 0.80, 0, 0.1))
    assert "is missing: no kept box" in (difference(original, found((OVER, 0.80, 0))) or "")


def test_two_that_overlap_may_not_both_be_kept() -> None:
    original = seen((BOX, 0.90, 0, 0.1), (OVER, 0.80, 0, 0.1))
    assert "are both kept" in (difference(original, found((BOX, 0.9, 0), (OVER, 0.8, 0))) or "")


def test_an_overlap_at_the_threshold_may_fall_either_way() -> None:
    at = [100.0 + 100 * (1 - 0.45) / 1.45, 100.0, 200.0 + 100 * (1 - 0.45) / 1.45, 200.0]
    original = seen((BOX, 0.9, 0, 0.1), (at, 0.8, 0, 0.1))
    assert difference(original, found((BOX, 0.9, 0))) is None
    assert difference(original, found((BOX, 0.9, 0), (at, 0.8, 0))) is None


def test_a_tie_between_labels_may_fall_either_way() -> None:
    original = seen((BOX, 0.9, 0, 0.8997))
    assert difference(original, found((BOX, 0.9, 1))) is None


def test_a_chain_of_ties_can_not_refuse_a_healthy_file() -> None:
    """Each box overlaps the next, so the one kept at an end decides all others."""
    chain = [[100.0 + 30 * n, 100.0, 200.0 + 30 * n, 200.0] for n in range(200)]
    scores = [0.9 - 4e-6 * (n % 3) for n in range(200)]
    original = seen(*((box, score, 0, 0.1) for box, score in zip(chain, scores, strict=True)))
    random = np.random.default_rng(0)
    outcomes = set()
    for _ in range(20):
        moved = np.array(scores) + random.uniform(-4e-6, 4e-6, 200)
        rows = [(b, float(s), 0, 0.1) for b, s in zip(chain, moved, strict=True)]
        answer = seen(*rows).detect(0.25, 0.45)
        outcomes.add(tuple(answer.boxes[:, 0]))
        assert difference(original, answer) is None
        cut = Found(answer.boxes[1:], answer.scores[1:], answer.class_ids[1:])
        assert difference(original, cut) is not None
    assert len(outcomes) > 5


@pytest.mark.parametrize("shift", [0.0, 0.05, -0.05])
def test_another_overlap_threshold_is_noticed(shift: float) -> None:
    random = np.random.default_rng(3)
    corners = random.uniform(0, 400, (300, 2))
    rows = [
        ([x, y, x + w, y + h], float(s), int(c), 0.0)
        for (x, y), (w, h), s, c in zip(
            corners.tolist(),
            random.uniform(40, 160, (300, 2)).tolist(),
            random.uniform(0.3, 1, 300),
            random.integers(0, 3, 300),
            strict=True,
        )
    ]
    answer = seen(*rows).detect(0.25, 0.45 + shift)
    assert (difference(seen(*rows), answer) is None) == (shift == 0)


def test_detections_are_paired_one_to_one() -> None:
    twice = found((BOX, 0.9, 0), (BOX, 0.9, 0))
    assert len(match(twice, found((BOX, 0.9, 0)), EXACT)) == 1


def test_the_originals_suppression_is_torchvisions() -> None:
    import torch

    random = np.random.default_rng(3)
    corners = random.uniform(0, 500, (200, 2)).astype(np.float32)
    boxes = np.hstack((corners, corners + random.uniform(20, 120, (200, 2)))).astype(np.float32)
    scores = random.random(200).astype(np.float32)
    rows = [
        (b.tolist(), float(s), int(i % 3), 0.0)
        for i, (b, s) in enumerate(zip(boxes, scores, strict=True))
    ]
    kept = torchvision.ops.batched_nms(
        torch.from_numpy(boxes), torch.from_numpy(scores), torch.arange(200) % 3, 0.45
    )
    expected = [float(scores[i]) for i in kept.tolist() if scores[i] > 0.25]
    answer = seen(*rows).detect(0.25, 0.45)
    assert answer.scores.tolist() == pytest.approx(expected)
