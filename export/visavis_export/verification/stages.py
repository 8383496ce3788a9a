"""One picture through the stages: what each adds, given the original's result of the one before.

Pre-processing: the input that the file's declared pipeline makes, against the original's. Graph:
the file's outputs for the original's input, against the original's. Post-processing: the
original's outputs, decoded as the file declares, against the original's answer.
"""

from dataclasses import dataclass

import numpy as np

from visavis_export.errors import ExportError
from visavis_export.families.original import Floats, Found
from visavis_export.pictures.files import read_image
from visavis_export.proof.receipt import EXACT, UNMOVED, Tolerance, match
from visavis_export.proof.served import found
from visavis_export.proof.suppression import find_difference
from visavis_export.verification.foreign_file import ForeignFile, in_layout
from visavis_export.verification.originals import Original, Seen, probabilities
from visavis_export.verification.outcome import Answers, Difference, PictureOutcome, Stage
from visavis_export.verification.pipelines import Geometry
from visavis_server.arrays import Image
from visavis_server.card import CandidateRows, ClassScores, Task
from visavis_server.errors import ModelFailed
from visavis_server.vision.comparison import detection_agreement
from visavis_server.vision.families import family_of, preprocess_one
from visavis_server.vision.families.detector import Detector
from visavis_server.vision.results import (
    Box,
    Classification,
    Classified,
    Detected,
    Detection,
    DetectOptions,
    Options,
)

# What counts as the same input: a resize that rounds one pixel otherwise is half a level off.
SAME_LEVELS = 0.05
# ultralytics' half files decode boxes in fp16 too; 0.0051 and 1.3 px were measured.
_HALF = Tolerance(score=1e-2, box_px=3.0, candidate_box_px=20.0)
# int8 has no exact tolerance; a graph counts as the same where its answers are this close.
_INT8 = Tolerance(score=0.15, box_px=8.0, candidate_box_px=1e9)
_INT8_F1 = 0.7
_THRESHOLDS = (0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 1e-4, 1e-5, 1e-6)


@dataclass(frozen=True, slots=True)
class Case:
    """One picture: encoded, decoded, and the original's input and raw output.

    fitted: the original's pipeline at the file's size. tensor, raw: its input and the output for
    it.
    """

    name: str
    encoded: bytes
    image: Image
    fitted: Geometry
    tensor: Floats
    raw: Floats

    def seen(self, original: Original) -> Seen:
        """Return what the original sees."""
        height, width = self.image.shape[:2]
        return original.seen(self.raw, self.fitted, width, height)


def case_of(name: str, encoded: bytes, file: ForeignFile, original: Original) -> Case:
    """Return a picture with the original's input and output at the file's size.

    Raises ExportError if the picture can't be decoded, or the original computes no numbers.
    """
    image = read_image(name, encoded)
    fitted = fit(original, file.size)
    tensor = original.pipeline.values.tensor(fitted.pixels(encoded))
    raw = original.network(tensor)
    if not np.isfinite(raw).all():
        raise ExportError(
            f"PyTorch itself gives NaN or infinity on {name!r}; the weights are unusable: give an "
            "earlier checkpoint"
        )
    return Case(name, encoded, image, fitted, tensor, raw)


def fit(original: Original, size: tuple[int, int]) -> Geometry:
    """Return the original's geometry for an input of another width and height."""
    own = original.pipeline.geometry
    if size == (own.width, own.height):
        return own
    width, height = size
    shorter = round(own.shorter_side * max(size) / own.width)
    return Geometry(own.rule, width, height, own.filter, shorter, own.pad)


def tolerance_of(precision: str) -> Tolerance:
    """Return the differences that a precision explains."""
    return {"fp32": EXACT, "fp16": _HALF, "int8": _INT8}.get(precision, _INT8)


def compare(case: Case, file: ForeignFile, original: Original) -> PictureOutcome:
    """Return the outcome for one picture."""
    theirs, _ = preprocess_one(family_of(file.document), case.image)
    own = original.pipeline.geometry
    same_size = file.size == (own.width, own.height)
    levels = levels_apart(theirs[0], case.tensor, original) if same_size else None
    graph = graph_difference(case, file, original, file.run(case.tensor))
    stages = {
        Stage.PREPROCESSING: Difference(levels is not None and levels <= SAME_LEVELS),
        Stage.GRAPH: graph,
        Stage.POSTPROCESSING: _post_difference(case, file, original, graph.same),
    }
    height, width = case.image.shape[:2]
    return PictureOutcome(
        case.name, width, height, levels, stages, _answers(case, file, original, theirs[0])
    )


def levels_apart(one: Floats, other: Floats, original: Original) -> float:
    """Return the largest difference of two inputs [3, H, W], in grey levels."""
    return float((np.abs(one - other) / original.pipeline.values.level).max())


def graph_difference(
    case: Case,
    file: ForeignFile,
    original: Original,
    outputs: list[Floats],
    raw: Floats | None = None,
) -> Difference:
    """Compare a graph's outputs for the original's input with the original's.

    raw: the original's output to compare with; None: that for its own input.
    """
    raw = case.raw if raw is None else raw
    if not all(np.isfinite(one).all() for one in outputs):
        return Difference(False, np.inf, why="the file computes NaN or infinity")
    tolerance = tolerance_of(file.precision)
    if original.task is Task.CLASSIFICATION:
        ours = as_probabilities(outputs[0][0].astype(np.float32))
        theirs = probabilities(raw)
        if ours.shape != theirs.shape:
            return Difference(False, 1.0, why=_counts(len(ours), len(theirs), "classes"))
        apart = float(np.abs(ours - theirs).max())
        same = apart <= tolerance.score or (
            file.precision == "int8" and ours.argmax() == theirs.argmax()
        )
        return Difference(bool(same), apart)
    if isinstance(file.document.output, CandidateRows) and (
        file.document.output.layout == "end_to_end"
    ):
        return _after_suppression(case, file, original, outputs, raw)
    ours, theirs = file.scores(outputs), original.scores(raw)
    if ours.shape != theirs.shape:
        what = "classes" if ours.shape[1:] == theirs.shape[1:] else "candidates"
        axis = 0 if what == "classes" else 1
        less = 4 if what == "classes" else 0
        return Difference(
            False, 1.0, why=_counts(ours.shape[axis] - less, theirs.shape[axis] - less, what)
        )
    score = float(np.abs(ours[4:] - theirs[4:]).max())
    if file.precision == "int8":
        return _by_answers(case, file, original, outputs, score)
    box = float(np.abs(_edges(ours[:4]) - _edges(theirs[:4])).max())
    same = score <= tolerance.score and box <= tolerance.candidate_box_px
    return Difference(same, score, box)


def as_probabilities(scores: Floats) -> Floats:
    """Return a classifier's output as probabilities, whether it is that or logits."""
    if scores.min() >= 0 and abs(float(scores.sum()) - 1) < 1e-2:
        return scores
    return probabilities(scores)


def threshold_of(seen: Seen, usual: float) -> float:
    """Return the usual score threshold, or the highest one with enough candidates to compare."""
    for threshold in (usual, *_THRESHOLDS):
        if np.count_nonzero(seen.candidates.scores > threshold) >= 1:
            return threshold
    return usual


def detected(one: Found, labels: tuple[str, ...]) -> Detected:
    """Return an original's detections in the server's form."""
    return Detected(
        tuple(
            Detection(
                Box(*map(float, box)),
                int(class_id),
                labels[class_id] if class_id < len(labels) else str(class_id),
                float(score),
            )
            for box, class_id, score in zip(one.boxes, one.class_ids, one.scores, strict=True)
        )
    )


def _counts(ours: int, theirs: int, what: str) -> str:
    return f"the file has {ours} {what}, the original {theirs}"


def _edges(cxcywh: Floats) -> Floats:
    half = cxcywh[2:] / 2
    return np.concatenate((cxcywh[:2] - half, cxcywh[:2] + half))


def _after_suppression(
    case: Case, file: ForeignFile, original: Original, outputs: list[Floats], raw: Floats
) -> Difference:
    """Compare boxes of a graph that suppresses on its own; in pixels of the input."""
    height, width = case.image.shape[:2]
    seen = original.seen(raw, case.fitted, width, height)
    threshold = max(threshold_of(seen, original.thresholds[0]), 0.25)
    family = Detector(file.document)
    rows = family.candidates(outputs, threshold)
    theirs = seen.detect(threshold, original.thresholds[1])
    ours = Found(seen.in_picture(rows.boxes), rows.scores, rows.class_ids.astype(np.int64))
    return _matched(ours, theirs, file)


def _by_answers(
    case: Case, file: ForeignFile, original: Original, outputs: list[Floats], score: float
) -> Difference:
    """Compare the boxes after suppression: of int8, candidates that are background may be off."""
    seen = case.seen(original)
    threshold = threshold_of(seen, original.thresholds[0])
    options = DetectOptions(score_threshold=threshold, iou_threshold=original.thresholds[1])
    place = preprocess_one(family_of(file.document), case.image)[1]
    ours = found(Detector(file.document).postprocess(outputs, place, options))
    theirs = seen.detect(threshold, original.thresholds[1])
    matched = _matched(ours, theirs, file)
    return Difference(matched.same, min(matched.score, score), matched.box_px, matched.why)


def _matched(ours: Found, theirs: Found, file: ForeignFile) -> Difference:
    agreement = detection_agreement(detected(ours, ()), detected(theirs, ()), same_label_set=True)
    here = [pair.index for pair in agreement.matches]
    there = [pair.baseline_index for pair in agreement.matches]
    score = float(np.abs(ours.scores[here] - theirs.scores[there]).max(initial=0))
    box = float(np.abs(ours.boxes[here] - theirs.boxes[there]).max(initial=0))
    tolerance = tolerance_of(file.precision)
    if file.precision == "int8":
        return Difference(agreement.f1 >= _INT8_F1 or len(theirs.scores) < 4, score, box)
    # A graph with its own suppression may decide a near tie otherwise.
    odd = agreement.only_here + agreement.only_in_baseline
    same = score <= tolerance.score and box <= tolerance.box_px and odd <= 2
    why = f"{odd} boxes are only on one side" if odd > 2 else ""
    return Difference(same, score, box, why)


def _post_difference(
    case: Case, file: ForeignFile, original: Original, graph_is_same: bool
) -> Difference:
    """Decode the original's outputs as the file declares, and compare with its own answer."""
    output = file.document.output
    if isinstance(output, ClassScores):
        return _post_classified(case, file, output.layout, graph_is_same)
    seen = case.seen(original)
    raw = in_layout(case.raw, original.layout, output.layout)
    if output.layout == "end_to_end" or (raw is None and not graph_is_same):
        return Difference(True)  # part of the graph, or not separable from it
    outputs = file.run(case.tensor) if raw is None else [raw[None]]
    if raw is None and file.precision != "fp32":
        return Difference(True)
    family = Detector(file.document)
    place = preprocess_one(family, case.image)[1]
    threshold = threshold_of(seen, original.thresholds[0])
    defaults = file.document.detection_defaults
    assert defaults is not None
    if threshold == original.thresholds[0]:
        threshold = defaults.score_threshold
    options = DetectOptions(score_threshold=threshold)
    try:
        ours = found(family.postprocess(outputs, place, options))
        inside = found(family.postprocess(outputs, UNMOVED, options)).boxes
    except (ModelFailed, ValueError, IndexError) as error:
        return Difference(False, why=f"the outputs can't be read as {output.layout}: {error}")
    moved = np.full(len(seen.candidates.scores), 1e-3, np.float32)
    limits = threshold_of(seen, original.thresholds[0]), original.thresholds[1]
    steps = EXACT.score, EXACT.candidate_box_px, EXACT.box_px
    why = find_difference(ours, inside, seen, limits, steps, moved)
    return Difference(why is None, why=why or "")


def _post_classified(case: Case, file: ForeignFile, layout: str, graph_is_same: bool) -> Difference:
    """Compare what the declared layout makes of the graph's numbers with the original's softmax."""
    if not graph_is_same:
        return Difference(True)
    scores = file.run(case.tensor)[0][0].astype(np.float32)
    read = probabilities(scores) if layout == "logits" else scores
    apart = float(np.abs(read - probabilities(case.raw)).max())
    limit = max(tolerance_of(file.precision).score, 2e-3)
    if file.precision == "int8":
        limit = 2 * float(np.abs(as_probabilities(scores) - probabilities(case.raw)).max()) + 1e-3
    return Difference(apart <= limit, apart)


def _answers(case: Case, file: ForeignFile, original: Original, theirs: Floats) -> Answers:
    """Return both sides' whole answers, each from the encoded picture on."""
    own_case = case
    own = original.pipeline.geometry
    if (case.fitted.width, case.fitted.height) != (own.width, own.height):
        tensor = original.pipeline.tensor(case.encoded)
        own_case = Case(case.name, case.encoded, case.image, own, tensor, original.network(tensor))
    labels = original.labels
    if original.task is Task.CLASSIFICATION:
        expected = classified(probabilities(own_case.raw), labels)
        given = file.served.answer(case.image, Options())
        assert isinstance(given, Classified)
        same = given.classifications[0].class_id == expected.classifications[0].class_id
        return Answers(int(same), int(not same), int(not same), given, expected)
    seen = own_case.seen(original)
    threshold = threshold_of(seen, original.thresholds[0])
    wanted = detected(seen.detect(threshold, original.thresholds[1]), labels)
    options = DetectOptions()
    if threshold != original.thresholds[0]:
        options = DetectOptions(score_threshold=threshold)
    try:
        answer = file.served.answer(case.image, Options(detect=options))
    except (ModelFailed, ValueError, IndexError):
        answer = Detected(())
    assert isinstance(answer, Detected)
    both = _in_both(found(answer), found(wanted), file)
    here, there = len(answer.detections) - both, len(wanted.detections) - both
    return Answers(both, here, there, answer, wanted)


def _in_both(ours: Found, theirs: Found, file: ForeignFile) -> int:
    """Return how many boxes are in both answers: nearly equal, or else overlapping by half.

    Boxes without area, as clipping leaves them, overlap nothing.
    """
    pairs = match(ours, theirs, tolerance_of(file.precision))
    rest = [
        detected(_without(one, {pair[side] for pair in pairs}), ())
        for side, one in enumerate((ours, theirs))
    ]
    return len(pairs) + len(detection_agreement(rest[0], rest[1], same_label_set=True).matches)


def _without(one: Found, indices: set[int]) -> Found:
    kept = [i for i in range(len(one.scores)) if i not in indices]
    return Found(one.boxes[kept], one.scores[kept], one.class_ids[kept])


def classified(scores: Floats, labels: tuple[str, ...]) -> Classified:
    """Return an original's probabilities in the server's form, its five best labels."""
    best = np.argsort(-scores, kind="stable")[:5]
    return Classified(
        tuple(Classification(int(i), labels[i], float(scores[i])) for i in best), scores
    )
