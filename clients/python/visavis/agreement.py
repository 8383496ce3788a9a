"""The agreement of two answers, by the definitions of the contract and of the server.

The server computes it for the models that it serves; this module for models of several servers.
tests/test_peers.py holds both against each other.
"""

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final, TypeVar

from visavis.dataset.names import comparable
from visavis.v1 import vision_pb2 as pb

MATCH_IOU: Final = 0.5
KNOWN_LABEL_SETS: Final = frozenset({"coco-80", "coco-91", "imagenet-1k"})
"""Sets that the server recognises, although their labels are spelled in several ways."""

_Item = TypeVar("_Item", pb.Classification, pb.Detection)


@lru_cache(maxsize=64)
def _comparable_names(labels: tuple[str, ...]) -> frozenset[str]:
    return frozenset(map(comparable, labels))


class SharedNames:
    """The names that two label sets share; here, baseline: their labels."""

    def __init__(self, here: Sequence[str], baseline: Sequence[str]) -> None:
        self._both = _comparable_names(tuple(here)) & _comparable_names(tuple(baseline))

    def key(self, label: str) -> str | None:
        """Return what a label is matched by; None if only one of the two sets has it."""
        name = comparable(label)
        return name if name in self._both else None


def shared_names(here: pb.LabelSet, baseline: pb.LabelSet) -> SharedNames | None:
    """Return the names that two label sets share; None if their class ids mean the same.

    Both with their labels. Known sets may be spelled differently.
    """
    same = here.labels == baseline.labels or here.name in KNOWN_LABEL_SETS
    if here.name == baseline.name and len(here.labels) == len(baseline.labels) and same:
        return None
    return SharedNames(here.labels, baseline.labels)


def left_out(baseline: str, unknown_here: int, unknown_in_baseline: int) -> str:
    """Return how many answers of a model and its baseline are left out, and why, as a sentence."""
    return (
        f"{unknown_here} of its answers and {unknown_in_baseline} of {baseline}'s are left out of "
        "the agreement: the other model lacks their labels"
    )


def classification_agreement(
    here: Sequence[pb.Classification],
    baseline: Sequence[pb.Classification],
    top_k: int,
    size: int,
    names: SharedNames | None = None,
) -> pb.ClassificationAgreement:
    """Return the agreement of two classifiers; both answers with all their labels, best first.

    top_k: labels that are compared. size: of this model's label set. names: the names that both
    models share; None: class ids are compared. Labels that the other model lacks are left out and
    counted.
    """
    ours, theirs = _keys(here[:top_k], names), _keys(baseline[:top_k], names)
    known, baseline_known = ([key for key in keys if key is not None] for keys in (ours, theirs))
    longer = max(len(known), len(baseline_known))
    agreement = pb.ClassificationAgreement(
        same_top1=bool(known and baseline_known) and known[0] == baseline_known[0],
        top_k_overlap=len(set(known) & set(baseline_known)) / longer if longer else 0.0,
        unknown_here=len(ours) - len(known),
        unknown_in_baseline=len(theirs) - len(baseline_known),
    )
    if names is None and len(here) == len(baseline) == size:
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
    here: Sequence[pb.Detection],
    baseline: Sequence[pb.Detection],
    names: SharedNames | None = None,
) -> pb.DetectionAgreement:
    """Return the agreement of two detectors: pairs of one label, highest IoU first.

    names: the names that both models share; None: class ids are compared. Detections whose label
    the other model lacks are left out and counted.
    """
    ours, theirs = _keys(here, names), _keys(baseline, names)
    pairs = sorted(
        (-overlap, i, j)
        for i, one in enumerate(here)
        for j, other in enumerate(baseline)
        if ours[i] is not None
        and ours[i] == theirs[j]
        and (overlap := iou(one.box, other.box)) >= MATCH_IOU
    )
    matches = [pb.DetectionMatch(index=i, baseline_index=j, iou=o) for o, i, j in _free(pairs)]
    unknown, baseline_unknown = ours.count(None), theirs.count(None)
    known, baseline_known = len(ours) - unknown, len(theirs) - baseline_unknown
    total = known + baseline_known
    agreement = pb.DetectionAgreement(
        matched=len(matches),
        only_here=known - len(matches),
        only_in_baseline=baseline_known - len(matches),
        f1=2 * len(matches) / total if total else 1.0,
        matches=matches,
        unknown_here=unknown,
        unknown_in_baseline=baseline_unknown,
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


def _keys(items: Sequence[_Item], names: SharedNames | None) -> list[int | str | None]:
    """Return what each label is matched by; None for labels that the other model lacks."""
    return [one.class_id if names is None else names.key(one.label) for one in items]


def _area(box: pb.BoundingBox) -> float:
    return (box.x_max - box.x_min) * (box.y_max - box.y_min)
