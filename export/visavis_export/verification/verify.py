"""Verifies a file: every picture through all stages, then why the first stage differs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from visavis_export.families.original import Floats
from visavis_export.verification import answers as given_answers
from visavis_export.verification import graphs, inputs, posts
from visavis_export.verification.cases import Case, case_of
from visavis_export.verification.foreign_file import ForeignFile, read_file
from visavis_export.verification.mistakes import finding
from visavis_export.verification.originals import Original, read_original
from visavis_export.verification.outcome import Finding, Outcome, PictureOutcome, Stage
from visavis_export.verification.stages import compare
from visavis_server.vision.families import family_of, preprocess_one

# Pictures on which an explanation must hold.
_WITNESSES = 2
# int8 usually keeps this much agreement; the recipe of docs/int8.md keeps 0.95.
_USUAL_AGREEMENT = 0.8
# Quantizing does this to any graph: it is no sign of another network.
_BY_QUANTIZING = ("other network", "operators", "before the first layer", "after the last layer")


@dataclass(frozen=True, slots=True, eq=False)
class Theirs:
    """Results of the caller's own code for the one picture: its tensor, its answers, or both."""

    tensor: Floats | None = None
    answers: given_answers.Given | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A verification.

    file: the .onnx file. against: the original's checkpoint. pictures: encoded, by name.
    class_names, transforms, size: what the original needs, as for an export.
    """

    file: Path
    against: Path
    pictures: Mapping[str, bytes]
    class_names: tuple[str, ...] | None = None
    transforms: str = "V1"
    size: int | None = None
    theirs: Theirs | None = None


def verify(request: Request, cache: Path, advance: Callable[[], None] = lambda: None) -> Outcome:
    """Return the outcome; advance is called after each picture.

    cache: a folder for what execution providers keep. Raises ExportError if the comparison cannot
    be made.
    """
    original = read_original(request.against, request.class_names, request.transforms, request.size)
    file = read_file(request.file, original, cache)
    made: list[tuple[str, PictureOutcome]] = []
    for name, encoded in request.pictures.items():
        made.append((name, compare(case_of(name, encoded, file, original), file, original)))
        advance()
    pictures = tuple(outcome for _, outcome in made)

    def case(picture: PictureOutcome) -> Case:
        return case_of(picture.name, request.pictures[picture.name], file, original)

    findings = _explained(pictures, case, file, original)
    if file.changed:
        findings = (finding("changed"), *findings)
    theirs = None
    if request.theirs is not None:
        ((name, encoded),) = request.pictures.items()
        theirs = _about_theirs(request.theirs, case_of(name, encoded, file, original), original)
    return Outcome(
        file=str(request.file),
        original=f"{request.against.name}, {original.title}",
        precision=file.precision,
        declared=file.declared,
        pictures=pictures,
        findings=findings,
        notes=tuple(_notes(file, original)),
        theirs=theirs,
    )


def _explained(
    pictures: tuple[PictureOutcome, ...],
    case: Callable[[PictureOutcome], Case],
    file: ForeignFile,
    original: Original,
) -> tuple[Finding, ...]:
    found: list[Finding] = []
    if worst := _worst(pictures, Stage.PREPROCESSING):
        one = case(worst[0])
        tensor, _ = preprocess_one(family_of(file.document), one.image)
        explained = inputs.explain(tensor[0], original, one.encoded)
        found += explained or (finding("unknown input", nearest="the original's", levels=0),)
    if worst := _worst(pictures, Stage.GRAPH):
        why = worst[0].stages[Stage.GRAPH].why
        if why and "NaN" not in why:
            found.append(finding("other outputs", why=why))
        else:
            explained = graphs.explain([case(one) for one in worst[:_WITNESSES]], file, original)
            if file.precision == "int8" and explained[0].mistake in _BY_QUANTIZING:
                explained = (finding("lossy", share=_agreement(pictures)),)
            found += explained
    elif file.precision == "int8" and (share := _agreement(pictures)) < _USUAL_AGREEMENT:
        found.append(finding("lossy", share=share))
    if worst := _worst(pictures, Stage.POSTPROCESSING):
        found += posts.explain(case(worst[0]), worst[0], file, original)
    found += posts.of_names(file, original)
    return tuple(found)


def _agreement(pictures: tuple[PictureOutcome, ...]) -> float:
    """Return the F1 of all boxes, or the share of pictures with the same first class."""
    both = sum(one.answers.both for one in pictures)
    alone = sum(one.answers.only_file + one.answers.only_original for one in pictures)
    return 2 * both / (2 * both + alone) if both + alone else 1.0


def _worst(pictures: tuple[PictureOutcome, ...], stage: Stage) -> list[PictureOutcome]:
    """Return the pictures on which a stage differs, the largest difference first."""
    differing = [one for one in pictures if not one.stages[stage].same]

    def size(one: PictureOutcome) -> float:
        if stage is Stage.PREPROCESSING:
            return np.inf if one.levels is None else one.levels
        return one.stages[stage].score

    return sorted(differing, key=size, reverse=True)


def _about_theirs(theirs: Theirs, case: Case, original: Original) -> tuple[Finding, ...]:
    found: tuple[Finding, ...] = ()
    if theirs.tensor is not None:
        planes, turned = inputs.as_planes(theirs.tensor)
        found += turned + inputs.explain(planes, original, case.encoded)
    if theirs.answers is not None:
        found += given_answers.explain(theirs.answers, case, original)
    return found


def _notes(file: ForeignFile, original: Original) -> list[str]:
    notes = []
    if not file.declared:
        notes.append(
            "the file says nothing of itself: it is read with the original's pre-processing, "
            "labels and thresholds"
        )
    if file.precision != "fp32":
        notes.append(
            f"its weights are {file.precision}: differences within that precision count as the same"
        )
    if file.document.provenance.random_weights:
        notes.append("its weights are random: its answers are meaningless")
    return notes
