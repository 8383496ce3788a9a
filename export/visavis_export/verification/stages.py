"""One picture through the stages: what each adds, given the original's result of the one before.

Pre-processing: the input that the file's declared pipeline makes, against the original's. Graph:
the file's outputs for the original's input, against the original's. Post-processing: the
original's outputs, decoded as the file declares, against the original's answer.
"""

import numpy as np

from visavis_export.families.original import Floats, Found
from visavis_export.proof.receipt import EXACT, match
from visavis_export.proof.served import found
from visavis_export.proof.suppression import find_difference
from visavis_export.verification.cases import Case, classified, detected, threshold_of
from visavis_export.verification.foreign_file import ForeignFile, in_layout
from visavis_export.verification.originals import Original, probabilities
from visavis_export.verification.outcome import Answers, Difference, PictureOutcome, Stage
from visavis_export.verification.outputs import as_probabilities, graph_difference, tolerance_of
from visavis_server.card import ClassScores, Task
from visavis_server.errors import ModelFailed
from visavis_server.vision.comparison import detection_agreement
from visavis_server.vision.families import family_of, preprocess_one
from visavis_server.vision.families.detector import Detector
from visavis_server.vision.results import Classified, Detected, DetectOptions, Options

# Inputs this close count as the same: a resize that rounds one pixel otherwise is half a level off.
SAME_LEVELS = 0.05


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
        inside = family.kept(outputs, place, options).boxes
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
    return len(pairs) + len(detection_agreement(rest[0], rest[1]).matches)


def _without(one: Found, indices: set[int]) -> Found:
    kept = [i for i in range(len(one.scores)) if i not in indices]
    return Found(one.boxes[kept], one.scores[kept], one.class_ids[kept])
