"""Detectors on a folder of pictures: what each found, and how it compares with the baseline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from visavis.cards import Model
from visavis.evaluation.accuracy import DetectionAccuracy
from visavis.evaluation.answers import PictureAnswers
from visavis.evaluation.boxes import Boxes
from visavis.evaluation.error_types import JudgedPicture
from visavis.evaluation.shared_classes import Names
from visavis.evaluation.statistics import Estimate


@dataclass(frozen=True)
class Detectors:
    """All detectors, and what is known of them as it is measured.

    models: the first gives the class ids of the truth. names: of each model's classes.

    known: the truth of each picture as each model knows it. paths: the pictures of each model's
    accuracy. judged: each model's boxes above its own threshold, by path. against: each model's
    shown boxes and the baseline's, by path.
    """

    models: Sequence[Model]
    baseline: Model
    answers: Sequence[PictureAnswers]
    truths: Mapping[str, Boxes]
    names: Mapping[str, Names]
    known: dict[str, Mapping[str, Boxes]] = field(default_factory=dict)
    paths: dict[str, list[str]] = field(default_factory=dict)
    accuracies: dict[str, DetectionAccuracy] = field(default_factory=dict)
    judged: dict[str, dict[str, JudgedPicture]] = field(default_factory=dict)
    against: dict[str, "dict[str, Against]"] = field(default_factory=dict)

    @property
    def others(self) -> list[Model]:
        """The models but the baseline."""
        return [model for model in self.models if model.name != self.baseline.name]


@dataclass(frozen=True, slots=True)
class Against:
    """A model on a picture, against the baseline.

    f1: of their boxes. only_here, only_there: classes of unmatched boxes, as the baseline's ids.
    fixed, broke: classes of objects that only one of both finds. unknown, unknown_there: boxes of
    each that were left out, as the other lacks their class.
    """

    f1: float
    only_here: tuple[int, ...]
    only_there: tuple[int, ...]
    fixed: tuple[int, ...]
    broke: tuple[int, ...]
    unknown: int
    unknown_there: int


def comparable_on(all_: Detectors, one: str, other: str) -> bool:
    """Return True if both were measured, on the same pictures."""
    measured = all_.accuracies
    return one in measured and other in measured and all_.paths[one] == all_.paths[other]


def difference_of(all_: Detectors, one: str, other: str) -> Estimate | None:
    """Return how much higher one model's mAP50-95 is than another's; None if it is not known."""
    if not comparable_on(all_, one, other):
        return None
    measured = all_.accuracies
    return measured[one].map50_95.minus(measured[other].map50_95).within(-1.0, 1.0)
