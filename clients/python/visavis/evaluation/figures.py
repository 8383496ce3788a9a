"""The figures of a comparison of models on a folder of pictures, as frozen values."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from visavis.cards import Model, Task
from visavis.dataset.labels import Truth
from visavis.evaluation.error_types import ErrorKind
from visavis.evaluation.operating import OperatingPoint
from visavis.evaluation.statistics import Changes, Estimate, Verdict

FEW: Final = 30
"""Below so many pictures a slice's interval is rough, and it is said to have few."""

NOTHING: Final = "(nothing)"
"""In a confusion matrix: a box without an object, or an object without a box."""

Truths = Mapping[str, int | tuple[Truth, ...]]
"""The truth of pictures, by path: a class id, or all objects."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Milliseconds: percentiles over all pictures."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from decoding to answer, without waiting; and those of each stage."""

    p50: float
    p95: float
    p99: float
    stages: Mapping[str, Spread]


@dataclass(frozen=True, slots=True)
class Cost:
    """A model on its own, measured. CPU time in milliseconds; memory of the server's process."""

    pictures_per_s: float
    cpu_ms: float | None
    memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class Confusion:
    """How many pictures of one class were taken for another."""

    truth: str
    answer: str
    pictures: int


@dataclass(frozen=True)
class ModelStudy:
    """One model on all pictures; accuracies are None without truth.

    pictures: that it answered. failures: pictures that only it did not answer; why: the first
    reason. operating: at the model's own score threshold; suggested: at the
    threshold of the highest F1; equal_precision: at the baseline's precision. matrix: how often
    each class was answered for each, of detectors with NOTHING. errors: by kind, of the boxes above
    the model's own threshold. per_class, per_size: AP50-95 by label, by size. cost: None unless it
    was measured.
    """

    card: Model
    pictures: int
    failures: int
    latency: Latency | None
    top1: Estimate | None = None
    top5: Estimate | None = None
    map50_95: Estimate | None = None
    map50: Estimate | None = None
    operating: OperatingPoint | None = None
    suggested: OperatingPoint | None = None
    equal_precision: OperatingPoint | None = None
    matrix: Mapping[tuple[str, str], int] = field(default_factory=dict)
    errors: Mapping[str, ErrorKind] = field(default_factory=dict)
    per_class: Mapping[str, float] = field(default_factory=dict)
    per_size: Mapping[str, float] = field(default_factory=dict)
    cost: Cost | None = None
    why: str = ""

    @property
    def confusions(self) -> tuple[Confusion, ...]:
        """The classes that were taken for others, most frequent first."""
        wrong = [
            Confusion(*pair, count)
            for pair, count in self.matrix.items()
            if pair[0] != pair[1] and NOTHING not in pair
        ]
        return tuple(sorted(wrong, key=lambda one: (-one.pictures, one.truth, one.answer)))


@dataclass(frozen=True)
class Pair:
    """A model against the baseline, on the pictures that both answered.

    agreement: share of pictures with the same best class; of detectors, the mean F1 of their
    boxes. difference: of the metric, top-1 or mAP50-95; None without truth. unknown: classes
    that only one of both knows; they do not count. unknown_here, unknown_in_baseline: best
    classes, or boxes, of each that the other lacks, and that are left out of the agreement.
    """

    model: str
    baseline: str
    agreement: Estimate
    metric: str = ""
    difference: Estimate | None = None
    changes: Changes | None = None
    unknown: int = 0
    unknown_here: int = 0
    unknown_in_baseline: int = 0

    @property
    def verdict(self) -> Verdict | None:
        """The meaning of the difference; None without truth."""
        return self.difference.verdict if self.difference else None


@dataclass(frozen=True)
class Slice:
    """Some of the pictures, or of the objects, and what models do on them.

    dimension: class, size, folder, brightness or shape. paths: the pictures; of a class or a size,
    those with an object of it. figures: by model. differences: by model, to the baseline; without
    truth there are none, and the figures are agreements with the baseline.
    """

    dimension: str
    name: str
    metric: str
    paths: frozenset[str]
    figures: Mapping[str, Estimate]
    differences: Mapping[str, Estimate] = field(default_factory=dict)

    @property
    def few(self) -> bool:
        """True if there are too few pictures for much of an interval."""
        return len(self.paths) < FEW


@dataclass(frozen=True, slots=True)
class Fact:
    """A model's result on a picture. kind: one of FACTS. truth, answer: class names, or empty."""

    model: str
    kind: str
    truth: str = ""
    answer: str = ""


FACTS: Final = {
    "fixed": "fixed: right where the baseline is wrong",
    "broke": "broke: wrong where the baseline is right",
    "wrong": "wrong class",
    "missed": "missed objects",
    "background": "false boxes: nothing is there",
    "class": "boxes with the wrong class",
    "place": "boxes in the wrong place",
    "both": "boxes with the wrong class and place",
    "duplicate": "objects found twice",
    "differs": "another class than the baseline's",
    "here": "only here: boxes that the baseline does not have",
    "baseline": "boxes that only the baseline has",
    "suspect": "labels that look wrong",
}
"""The kinds of facts about pictures, in words."""


@dataclass(frozen=True)
class Disagreement:
    """A picture that a model answers otherwise than the truth or the baseline.

    suspect: all models agree, and the truth differs. facts: what each model does there.
    """

    path: str
    answers: Mapping[str, str]
    truth: str = ""
    suspect: bool = False
    facts: tuple[Fact, ...] = ()


@dataclass(frozen=True)
class TaskStudy:
    """All models of one task. labelled: pictures whose truth is known.

    slices: of each dimension that tells pictures apart; folders: how many are not among them.
    contests: the difference of each two models, the first minus the second.
    """

    task: Task
    models: tuple[ModelStudy, ...]
    pairs: tuple[Pair, ...]
    labelled: int
    disagreements: tuple[Disagreement, ...]
    slices: tuple[Slice, ...] = ()
    folders_left_out: int = 0
    contests: Mapping[tuple[str, str], Estimate] = field(default_factory=dict)

    def difference(self, model: str, other: str) -> Estimate | None:
        """Return how much better one model is than another on the same pictures, if known."""
        if (model, other) in self.contests:
            return self.contests[model, other]
        reverse = self.contests.get((other, model))
        return None if reverse is None else -reverse


@dataclass(frozen=True)
class Study:
    """pictures: how many there are. failures: pictures that could not be answered, and why."""

    pictures: int
    failures: Mapping[str, str]
    tasks: tuple[TaskStudy, ...]


@dataclass(frozen=True, slots=True)
class Chance:
    """How many differences of slices were tested, and of how many the interval excludes zero.

    by_chance: how many would do so on average, at most, if the models were equal.
    """

    tested: int
    told: int
    by_chance: float


def chance(task: TaskStudy) -> Chance:
    """Return how far the differences of slices can be believed, all together."""
    tested = [
        difference
        for one in task.slices
        for difference in one.differences.values()
        if not math.isnan(difference.value)
        # With an interval of all that is possible, as of one picture, nothing was tested.
        and (difference.low > -1.0 or difference.high < 1.0)
    ]
    told = sum(one.verdict is not Verdict.CANNOT_TELL for one in tested)
    return Chance(len(tested), told, 0.05 * len(tested))
