"""The outcome of a verification: stages, findings, pictures, and their JSON."""

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from visavis_server.vision.results import Classified, Detected

SCHEMA_VERSION: Final = 1


class Stage(StrEnum):
    """A part of the way from a picture to its answer, in order."""

    PREPROCESSING = "pre-processing"
    GRAPH = "graph"
    POSTPROCESSING = "post-processing"


@dataclass(frozen=True, slots=True)
class Finding:
    """Why a stage differs. mistake: its short name. says: a sentence. todo: what to do."""

    stage: Stage
    mistake: str
    says: str
    todo: str = ""


@dataclass(frozen=True, slots=True)
class Difference:
    """The largest difference on one picture.

    score: of scores in [0, 1]. box_px: of boxes, in pixels of the input; None: a classifier.
    why: what differs, where it is not a number.
    """

    same: bool
    score: float = 0.0
    box_px: float | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Answers:
    """Both answers about one picture, each side with its own pre- and post-processing.

    both, only_file, only_original: boxes; of classifiers, 1, 0, 0 for the same first class and 0,
    1, 1 for different ones. file, original: the answers themselves, to be drawn.
    """

    both: int
    only_file: int
    only_original: int
    file: Classified | Detected = field(repr=False)
    original: Classified | Detected = field(repr=False)

    @property
    def same(self) -> bool:
        """True if neither side has something that the other lacks."""
        return not (self.only_file or self.only_original)


@dataclass(frozen=True, slots=True)
class PictureOutcome:
    """One picture through all stages.

    levels: the largest difference of the input in grey levels; None: the inputs' sizes differ.
    stages: what each stage alone adds, given the original's result of the stage before.
    """

    name: str
    width: int
    height: int
    levels: float | None
    stages: dict[Stage, Difference]
    answers: Answers

    @property
    def same(self) -> bool:
        """True if no stage differs."""
        return all(one.same for one in self.stages.values())


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome for all pictures.

    file, original: what they are, in words. declared: where the file's description comes from.
    theirs: findings about the tensor or the answers that the caller's own code made; None: none
    were given. notes: what is worth knowing but is no difference.
    """

    file: str
    original: str
    precision: str
    declared: str
    pictures: tuple[PictureOutcome, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()
    theirs: tuple[Finding, ...] | None = None

    @property
    def begins(self) -> Stage | None:
        """The first stage that differs on any picture; None if none does."""
        for stage in Stage:
            if any(not one.stages[stage].same for one in self.pictures):
                return stage
            if any(finding.stage is stage for finding in self.findings):
                return stage
        return None

    @property
    def file_is_same(self) -> bool:
        """True if the file answers as the original does."""
        return self.begins is None

    @property
    def same(self) -> bool:
        """True if the file, and the caller's own tensor or answers, are the original's."""
        return self.file_is_same and not self.theirs


def to_json(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as JSON's values; docs/verify.md describes them."""
    return {
        "schema_version": SCHEMA_VERSION,
        "file": outcome.file,
        "original": outcome.original,
        "precision": outcome.precision,
        "declared_by": outcome.declared,
        "verdict": "same" if outcome.same else "differs",
        "begins": outcome.begins,
        "findings": [_finding(one) for one in outcome.findings],
        "theirs": None if outcome.theirs is None else [_finding(one) for one in outcome.theirs],
        "notes": list(outcome.notes),
        "pictures": [_picture(one) for one in outcome.pictures],
    }


def _finding(one: Finding) -> dict[str, Any]:
    return {"stage": one.stage, "mistake": one.mistake, "says": one.says, "todo": one.todo}


def _number(value: float | None) -> float | None:
    """Return a number that JSON has; None for infinity."""
    return None if value is None or not math.isfinite(value) else value


def _picture(one: PictureOutcome) -> dict[str, Any]:
    return {
        "picture": one.name,
        "width": one.width,
        "height": one.height,
        "same": one.same,
        "input_difference_levels": one.levels,
        "stages": {
            stage.value: {
                "same": it.same,
                "score_difference": _number(it.score),
                "box_difference_px": _number(it.box_px),
                "why": it.why,
            }
            for stage, it in one.stages.items()
        },
        "both": one.answers.both,
        "only_file": one.answers.only_file,
        "only_original": one.answers.only_original,
    }
