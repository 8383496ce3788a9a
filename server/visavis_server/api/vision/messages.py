"""Answers of models as messages of VisionService."""

from visavis.v1 import vision_pb2 as pb

from visavis_server.api.vision.cards import TASKS
from visavis_server.errors import VisavisError
from visavis_server.telemetry.timings import Timings
from visavis_server.vision import comparison, results
from visavis_server.vision.heat_maps import HeatMap

# google.rpc.Code, by the names in VisavisError.code.
_CODES = {
    "INVALID_ARGUMENT": 3,
    "DEADLINE_EXCEEDED": 4,
    "NOT_FOUND": 5,
    "RESOURCE_EXHAUSTED": 8,
    "INTERNAL": 13,
    "UNAVAILABLE": 14,
}


def classify_response(
    answer: results.Answer, timings: Timings, size: pb.ImageSize
) -> pb.ClassifyResponse:
    """Return a classifier's answer as a message; timings: of the whole call."""
    assert isinstance(answer.result, results.Classified)
    return pb.ClassifyResponse(
        classifications=classifications(answer.result),
        served_by=served_by(answer.served_by),
        timings=timings_message(timings),
        image_size=size,
        heat_map=heat_map(answer.result.heat_map),
    )


def detect_response(
    answer: results.Answer, timings: Timings, size: pb.ImageSize
) -> pb.DetectResponse:
    """Return a detector's answer as a message; timings: of the whole call."""
    assert isinstance(answer.result, results.Detected)
    return pb.DetectResponse(
        detections=detections(answer.result),
        served_by=served_by(answer.served_by),
        timings=timings_message(timings),
        image_size=size,
        heat_map=heat_map(answer.result.heat_map),
    )


def classifications(result: results.Classified) -> list[pb.Classification]:
    """Return a classifier's labels as messages."""
    return [
        pb.Classification(class_id=c.class_id, label=c.label, score=c.score)
        for c in result.classifications
    ]


def detections(result: results.Detected) -> list[pb.Detection]:
    """Return a detector's objects as messages."""
    return [
        pb.Detection(
            box=pb.BoundingBox(
                x_min=d.box.x_min,
                y_min=d.box.y_min,
                x_max=d.box.x_max,
                y_max=d.box.y_max,
            ),
            class_id=d.class_id,
            label=d.label,
            score=d.score,
        )
        for d in result.detections
    ]


def heat_map(of: HeatMap | None) -> pb.HeatMap | None:
    """Return a heat map as a message; None for none."""
    if of is None:
        return None
    rows, columns = of.values.shape
    area = of.area
    return pb.HeatMap(
        class_id=of.class_id,
        label=of.label,
        width=columns,
        height=rows,
        values=of.values.ravel().tolist(),
        min=float(of.values.min()),
        max=float(of.values.max()),
        area=pb.HeatMapArea(x_min=area.x_min, y_min=area.y_min, x_max=area.x_max, y_max=area.y_max),
    )


def served_by(by: results.ServedBy) -> pb.ServedBy:
    """Return the model that answered as a message."""
    return pb.ServedBy(
        model=by.model,
        version=by.version,
        precision=by.precision,
        execution_provider=by.execution_provider,
        random_weights=by.random_weights,
    )


def timings_message(timings: Timings) -> pb.Timings:
    """Return timings as a message, rounded to microseconds."""
    return pb.Timings(
        queue_ms=round(timings.queue_ms, 3),
        decode_ms=round(timings.decode_ms, 3),
        preprocess_ms=round(timings.preprocess_ms, 3),
        inference_ms=round(timings.inference_ms, 3),
        postprocess_ms=round(timings.postprocess_ms, 3),
        total_ms=round(timings.total_ms, 3),
    )


def image_size(picture: results.Picture) -> pb.ImageSize:
    """Return the width and height of a decoded picture as a message."""
    return pb.ImageSize(width=picture.width, height=picture.height)


def streamed_answer(answer: comparison.ModelAnswer) -> pb.StreamedAnswer:
    """Return one answer of a streamed comparison as a message."""
    return pb.StreamedAnswer(task=TASKS[answer.model.task], answer=model_answer(answer))


def task_comparison(compared: comparison.TaskComparison) -> pb.TaskComparison:
    """Return the comparison for one task as a message."""
    return pb.TaskComparison(
        task=TASKS[compared.task],
        baseline=compared.baseline,
        answers=[model_answer(answer) for answer in compared.answers],
        nothing_to_compare=compared.nothing_to_compare,
    )


def model_answer(answer: comparison.ModelAnswer) -> pb.ModelAnswer:
    """Return one model's answer in a comparison as a message."""
    outcome = answer.outcome
    message = pb.ModelAnswer(served_by=served_by(answer.model.served_by))
    if isinstance(outcome, VisavisError):
        message.status.code = _CODES[outcome.code]
        message.status.message = str(outcome)
        return message
    message.status.code = 0
    message.timings.CopyFrom(timings_message(outcome.timings))
    if isinstance(outcome.result, results.Classified):
        message.classifications.extend(classifications(outcome.result))
    else:
        message.detections.extend(detections(outcome.result))
    if (explained := heat_map(outcome.result.heat_map)) is not None:
        message.heat_map.CopyFrom(explained)
    _write_agreement(message, answer.agreement)
    return message


def _write_agreement(message: pb.ModelAnswer, agreement: comparison.Agreement | None) -> None:
    if isinstance(agreement, comparison.ClassificationAgreement):
        message.classification_agreement.CopyFrom(
            pb.ClassificationAgreement(
                same_top1=agreement.same_top1,
                top_k_overlap=agreement.top_k_overlap,
                jensen_shannon_divergence=agreement.jensen_shannon_divergence,
                unknown_here=agreement.unknown_here,
                unknown_in_baseline=agreement.unknown_in_baseline,
            )
        )
    elif isinstance(agreement, comparison.DetectionAgreement):
        message.detection_agreement.CopyFrom(
            pb.DetectionAgreement(
                matched=len(agreement.matches),
                only_here=agreement.only_here,
                only_in_baseline=agreement.only_in_baseline,
                mean_iou=agreement.mean_iou,
                mean_score_difference=agreement.mean_score_difference,
                f1=agreement.f1,
                matches=[
                    pb.DetectionMatch(index=m.index, baseline_index=m.baseline_index, iou=m.iou)
                    for m in agreement.matches
                ],
                unknown_here=agreement.unknown_here,
                unknown_in_baseline=agreement.unknown_in_baseline,
            )
        )
