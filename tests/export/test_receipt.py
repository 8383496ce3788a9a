"""When a receipt holds, when it excuses, and when it fails."""

import numpy as np
import pytest
import torchvision

from export.errors import ReceiptFailed
from export.original import Candidates, Found
from export.receipt import EXACT, _Edge, match
from export.yolov5 import Place, _Seen, unletterbox

BOX = [100.0, 100.0, 200.0, 200.0]
BESIDE = [300.0, 100.0, 400.0, 200.0]
# Overlaps BOX by 0.6, more than the threshold of 0.45.
OVER = [125.0, 100.0, 225.0, 200.0]


def seen(*rows: tuple[list[float], float, int, float]) -> _Seen:
    """Return what an original saw: (box, score, class, score of the second best class)."""
    boxes, scores, class_ids, second = zip(*rows, strict=True)
    candidates = Candidates(
        np.array(boxes, np.float32),
        np.array(scores, np.float32),
        np.array(class_ids, np.int64),
        np.array(second, np.float32),
        np.array(class_ids, np.int64) + 1,
    )
    return _Seen(candidates, Place(640, 640, 640), unletterbox)


def found(*rows: tuple[list[float], float, int]) -> Found:
    boxes, scores, class_ids = zip(*rows, strict=True) if rows else ([], [], [])
    return Found(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(class_ids, np.int64),
    )


def compare(original: _Seen, ours: Found) -> tuple[int, int]:
    pairs, excused = _Edge(original, 0.25, 0.45, EXACT).compare(ours, "picture")
    return len(pairs), excused


def test_equal_answers_need_no_excuse() -> None:
    assert compare(seen((BOX, 0.9, 0, 0.1)), found((BOX, 0.9, 0))) == (1, 0)


@pytest.mark.parametrize(
    "ours",
    [
        found(),
        found((BOX, 0.9, 1)),
        found((BOX, 0.902, 0)),
        found(([102.0, 100.0, 200.0, 200.0], 0.9, 0)),
        found((BOX, 0.9, 0), (BESIDE, 0.9, 0)),
    ],
    ids=["missing", "other label", "score off by 0.002", "edge off by 2 px", "one too many"],
)
def test_a_real_difference_fails(ours: Found) -> None:
    with pytest.raises(ReceiptFailed, match="only found"):
        compare(seen((BOX, 0.9, 0, 0.1)), ours)


def test_a_score_at_the_threshold_is_excused() -> None:
    original = seen((BOX, 0.9, 0, 0.1), (BESIDE, 0.2503, 0, 0.1))
    assert compare(original, found((BOX, 0.9, 0))) == (1, 1)


def test_a_score_clear_of_the_threshold_is_not_excused() -> None:
    original = seen((BOX, 0.9, 0, 0.1), (BESIDE, 0.2530, 0, 0.1))
    with pytest.raises(ReceiptFailed, match="only found in PyTorch"):
        compare(original, found((BOX, 0.9, 0)))


def test_a_tie_between_overlapping_boxes_is_excused() -> None:
    original = seen((BOX, 0.9000, 0, 0.1), (OVER, 0.8999, 0, 0.1))
    assert compare(original, found((OVER, 0.8999, 0))) == (0, 2)


def test_a_tie_between_labels_is_excused() -> None:
    original = seen((BOX, 0.9, 0, 0.8997))
    assert compare(original, found((BOX, 0.9, 1))) == (0, 2)


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
