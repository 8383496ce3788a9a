"""Annotated pictures: answers drawn for responses."""

from visavis.v1 import vision_pb2 as pb

from visavis_server.errors import VisavisError
from visavis_server.vision import annotate, comparison
from visavis_server.vision.results import Classified, Detected


def drawing(encoded: bytes) -> pb.AnnotatedImage:
    """Return an annotated picture, encoded as annotate.MEDIA_TYPE, as a message."""
    width, height = annotate.size_of(encoded)
    size = pb.ImageSize(width=width, height=height)
    return pb.AnnotatedImage(encoded=encoded, media_type=annotate.MEDIA_TYPE, size=size)


def panel(
    answer: comparison.ModelAnswer, compared: comparison.TaskComparison
) -> tuple[str, str, Classified | Detected | None]:
    """Return one answer's panel in a comparison's drawing: title, note and result."""
    by, baseline = answer.model.served_by, compared.baseline
    title = f"{by.model} · {annotate.RANDOM_MARK}" if by.random_weights else by.model
    if isinstance(answer.outcome, VisavisError):
        return title, str(answer.outcome), None
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
    return title, note, answer.outcome.result
