"""Annotated pictures: answers drawn for responses."""

from collections.abc import Sequence

from visavis.v1 import vision_pb2 as pb

from visavis_server.card import Task
from visavis_server.errors import VisavisError
from visavis_server.vision import annotate, comparison
from visavis_server.vision.results import Detected


def drawing(encoded: bytes) -> pb.AnnotatedImage:
    """Return an annotated picture, encoded as annotate.MEDIA_TYPE, as a message."""
    width, height = annotate.size_of(encoded)
    size = pb.ImageSize(width=width, height=height)
    return pb.AnnotatedImage(encoded=encoded, media_type=annotate.MEDIA_TYPE, size=size)


def comparison_panels(
    comparisons: Sequence[comparison.TaskComparison], *, difference: bool
) -> tuple[list[annotate.Panel], str]:
    """Return the panels of a comparison's drawing, and the model that differences are from.

    difference: draw how detectors' boxes differ. The name is empty if nothing differs.
    """
    baseline = ""
    if difference:
        for compared in comparisons:
            if compared.task is Task.OBJECT_DETECTION and not compared.nothing_to_compare:
                baseline = compared.baseline
    panels = [_panel(a, c, difference=difference) for c in comparisons for a in c.answers]
    return panels, baseline


def _panel(
    answer: comparison.ModelAnswer, compared: comparison.TaskComparison, *, difference: bool = False
) -> annotate.Panel:
    """Return one answer's panel in a comparison's drawing.

    difference: in the colours of what it shares with the baseline's.
    """
    by, baseline = answer.model.served_by, compared.baseline
    title = f"{by.model} · {annotate.RANDOM_MARK}" if by.random_weights else by.model
    if isinstance(answer.outcome, VisavisError):
        return annotate.Panel(title, str(answer.outcome), None)
    agreement = answer.agreement
    if isinstance(agreement, comparison.ClassificationAgreement):
        same = "same" if agreement.same_top1 else "other"
        note = f"{same} top-1 as {baseline}, top-k overlap {agreement.top_k_overlap:.0%}"
    elif isinstance(agreement, comparison.DetectionAgreement):
        note = f"F1 {agreement.f1:.2f} with {baseline}, {len(agreement.matches)} matched"
    else:
        agreement = None
        alone = bool(compared.nothing_to_compare)
        note = "baseline" if by.model == baseline and not alone else ""
    if agreement and (unknown := agreement.unknown_here + agreement.unknown_in_baseline):
        note += f", {unknown} not comparable"
    inference = f"{answer.outcome.timings.inference_ms:.0f} ms"
    note = " · ".join(filter(None, (note, by.precision, inference)))
    differs = _difference(answer, compared) if difference else None
    return annotate.Panel(title, note, answer.outcome.result, differs)


def _difference(
    answer: comparison.ModelAnswer, compared: comparison.TaskComparison
) -> annotate.Difference | None:
    """Return how boxes differ from the baseline's; None if they are not compared with any."""
    assert not isinstance(answer.outcome, VisavisError)
    result, agreement = answer.outcome.result, answer.agreement
    if not isinstance(result, Detected) or len(compared.answers) < 2:
        return None
    if answer.model.name == compared.baseline:
        return annotate.Difference((True,) * len(result.detections))
    if not isinstance(agreement, comparison.DetectionAgreement):
        return None
    (baseline,) = (a.outcome for a in compared.answers if a.model.name == compared.baseline)
    assert not isinstance(baseline, VisavisError)
    assert isinstance(baseline.result, Detected)
    here = {match.index for match in agreement.matches}
    there = {match.baseline_index for match in agreement.matches}
    return annotate.Difference(
        tuple(index in here for index in range(len(result.detections))),
        tuple(d for index, d in enumerate(baseline.result.detections) if index not in there),
    )
