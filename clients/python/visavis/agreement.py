"""The agreement of two answers, by the definitions of the contract and of the server.

The server computes it for the models that it serves; this module for models of several servers.
tests/clients/test_agreement.py holds both against each other.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

from visavis.dataset.names import comparable
from visavis.v1 import vision_pb2 as pb

MATCH_IOU: Final = 0.5

_Item = TypeVar("_Item", pb.Classification, pb.Detection)


def same_label_set(one: pb.LabelSet, other: pb.LabelSet) -> bool:
    """Return True if class ids mean the same: names of label sets are derived from the labels."""
    return one.name == other.name and one.size == other.size


def classification_agreement(
    here: Sequence[pb.Classification],
    baseline: Sequence[pb.Classification],
    top_k: int,
    classes: int | None,
) -> pb.ClassificationAgreement:
    """Return the agreement of two classifiers; both answers with all their labels, best first.

    top_k: labels that are compared. classes: of the label set that both share; None: they share
    none, and labels are matched by name. Labels that only one model knows count as different: the
    cards of a comparison don't list them.
    """
    by_id = classes is not None
    ours, theirs = (_keys(one[:top_k], by_id) for one in (here, baseline))
    agreement = pb.ClassificationAgreement(
        same_top1=ours[:1] == theirs[:1],
        top_k_overlap=len(set(ours) & set(theirs)) / max(len(ours), len(theirs), 1),
    )
    if classes is not None and len(here) == len(baseline) == classes:
        agreement.jensen_shannon_divergence = jensen_shannon_divergence(
            *({one.class_id: one.score for one in answer} for answer in (here, baseline))
        )
    return agreement


def jensen_shannon_divergence(one: dict[int, float], other: dict[int, float]) -> float:
    """Return the divergence, base 2, of two distributions by class id: 0 equal, 1 disjoint."""
    p_sum, q_sum = math.fsum(one.values()), math.fsum(other.values())
    if not (p_sum > 0 and q_sum > 0):
        return 0.0
    terms = []
    for key in one.keys() | other.keys():
        p, q = one.get(key, 0.0) / p_sum, other.get(key, 0.0) / q_sum
        middle = (p + q) / 2
        terms += [part * math.log2(part / middle) / 2 for part in (p, q) if part > 0]
    return min(max(math.fsum(terms), 0.0), 1.0)


def detection_agreement(
    here: Sequence[pb.Detection], baseline: Sequence[pb.Detection], by_id: bool
) -> pb.DetectionAgreement:
    """Return the agreement of two detectors: pairs of one label, highest IoU first.

    by_id: labels are matched by class id, else by name.
    """
    ours, theirs = _keys(here, by_id), _keys(baseline, by_id)
    pairs = sorted(
        (-overlap, i, j)
        for i, one in enumerate(here)
        for j, other in enumerate(baseline)
        if ours[i] == theirs[j] and (overlap := iou(one.box, other.box)) >= MATCH_IOU
    )
    matches = [pb.DetectionMatch(index=i, baseline_index=j, iou=o) for o, i, j in _free(pairs)]
    agreement = pb.DetectionAgreement(
        matched=len(matches),
        only_here=len(here) - len(matches),
        only_in_baseline=len(baseline) - len(matches),
        f1=2 * len(matches) / (len(here) + len(baseline)) if here or baseline else 1.0,
        matches=matches,
    )
    if matches:
        apart = [abs(here[m.index].score - baseline[m.baseline_index].score) for m in matches]
        agreement.mean_iou = sum(match.iou for match in matches) / len(matches)
        agreement.mean_score_difference = sum(apart) / len(apart)
    return agreement


def iou(one: pb.BoundingBox, other: pb.BoundingBox) -> float:
    """Return the intersection over union of two boxes; 0 for boxes without area."""
    width = min(one.x_max, other.x_max) - max(one.x_min, other.x_min)
    height = min(one.y_max, other.y_max) - max(one.y_min, other.y_min)
    if width <= 0 or height <= 0:
        return 0.0
    intersection = width * height
    return intersection / (_area(one) + _area(other) - intersection)


def _free(pairs: Sequence[tuple[float, int, int]]) -> Iterator[tuple[float, int, int]]:
    """Yield the pairs, best first, of which neither side is taken."""
    taken: set[int] = set()
    baseline_taken: set[int] = set()
    for negative, i, j in pairs:
        if i not in taken and j not in baseline_taken:
            taken.add(i)
            baseline_taken.add(j)
            yield -negative, i, j


def _keys(items: Sequence[_Item], by_id: bool) -> list[int | str]:
    return [item.class_id if by_id else comparable(item.label) for item in items]


def _area(box: pb.BoundingBox) -> float:
    return (box.x_max - box.x_min) * (box.y_max - box.y_min)
