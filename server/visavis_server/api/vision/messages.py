"""Domain to protobuf and back: requests read, answers written."""

import math
from collections.abc import Callable, Sequence

from visavis.v1 import vision_pb2 as pb

from visavis_server.arrays import Image
from visavis_server.card import Facts, ModelDocument, Receipt, Task
from visavis_server.errors import InvalidRequest, VisavisError
from visavis_server.models.served_model import ServedModel
from visavis_server.runtime.budget import Held
from visavis_server.settings import ImageLimits
from visavis_server.telemetry.timings import Timings
from visavis_server.vision import comparison, results
from visavis_server.vision.image import decode, from_raw

DetectionOptions = pb.DetectRequest | pb.CompareRequest | pb.CompareStreamRequest
ComparisonRequest = pb.CompareRequest | pb.CompareStreamRequest

_TASKS = {
    Task.CLASSIFICATION: pb.TASK_CLASSIFICATION,
    Task.OBJECT_DETECTION: pb.TASK_OBJECT_DETECTION,
}
_TASKS_BY_NUMBER = {number: task for task, number in _TASKS.items()}
# google.rpc.Code, by the names that errors carry.
_CODES = {
    "INVALID_ARGUMENT": 3,
    "DEADLINE_EXCEEDED": 4,
    "NOT_FOUND": 5,
    "RESOURCE_EXHAUSTED": 8,
    "INTERNAL": 13,
    "UNAVAILABLE": 14,
}


def read_picture(image: pb.Image, limits: ImageLimits) -> results.Picture:
    """Return the picture of a request; decoding it raises InvalidRequest, and Overloaded."""
    held = Held(limits.budget, "decoded")
    if image.WhichOneof("source") == "encoded":
        return results.Picture(lambda: decode(image.encoded, limits, hold=held.wait_for), held)
    return results.Picture(lambda: _read_raw(image.raw, limits, held.wait_for), held)


def _read_raw(raw: pb.RawImage, limits: ImageLimits, hold: Callable[[int], None]) -> Image:
    name = {
        pb.PIXEL_FORMAT_RGB: "RGB",
        pb.PIXEL_FORMAT_BGR: "BGR",
        pb.PIXEL_FORMAT_GRAY: "GRAY",
        pb.PIXEL_FORMAT_NV12: "NV12",
    }.get(raw.format)
    if name is None:
        raise InvalidRequest(
            "image.raw.format", f"format is {raw.format}; choose RGB, BGR, GRAY or NV12"
        )
    return from_raw(name, raw.width, raw.height, raw.data, limits, hold)


def require_image(
    request: pb.ClassifyRequest | pb.DetectRequest | ComparisonRequest,
) -> None:
    """Raise InvalidRequest unless the request carries an image."""
    if request.image.WhichOneof("source") is None:
        raise InvalidRequest(
            "image",
            "there is no image; send image.encoded (JPEG, PNG, WebP) or image.raw",
        )


def read_version(
    request: pb.ClassifyRequest | pb.DetectRequest | pb.GetModelRequest,
) -> int | None:
    """Return the version that was asked for; None: the highest."""
    if not request.HasField("version"):
        return None
    if request.version < 1:
        raise InvalidRequest("version", f"version is {request.version}; it must be at least 1")
    return request.version


def read_classification_options(
    request: pb.ClassifyRequest | ComparisonRequest,
) -> results.Options:
    """Return a request's options for classifiers; raises InvalidRequest if out of range."""
    return results.Options(top_k=request.top_k) if request.HasField("top_k") else results.Options()


def read_detection_options(request: DetectionOptions, top_k: int = 5) -> results.Options:
    """Return a request's options for detectors; raises InvalidRequest if out of range."""
    return results.Options(
        top_k=top_k,
        score_threshold=_threshold(request, "score_threshold"),
        iou_threshold=_threshold(request, "iou_threshold"),
        max_detections=request.max_detections if request.HasField("max_detections") else None,
        labels=tuple(request.labels),
        class_agnostic=request.class_agnostic,
    )


def read_tasks(request: ComparisonRequest) -> list[Task]:
    """Return the tasks that a comparison asks for; raises InvalidRequest for unknown ones."""
    tasks = []
    for number in request.tasks:
        if number not in _TASKS_BY_NUMBER:
            raise InvalidRequest(
                "tasks",
                f"task {number} is unknown; choose "
                f"{', '.join(map(pb.Task.Name, _TASKS_BY_NUMBER))}",
            )
        tasks.append(_TASKS_BY_NUMBER[number])
    return tasks


def _threshold(request: DetectionOptions, field: str) -> float | None:
    """Return a threshold as its sender wrote it: float32's 0.45 is 0.449999988."""
    if not request.HasField(field):
        return None
    value: float = getattr(request, field)
    return round(value, 7) if math.isfinite(value) else value


def classify_response(
    answer: results.Answer, timings: Timings, size: pb.ImageSize
) -> pb.ClassifyResponse:
    """Return a classifier's answer as a message."""
    assert isinstance(answer.result, results.Classified)
    return pb.ClassifyResponse(
        classifications=classifications(answer.result),
        served_by=served_by(answer.served_by),
        timings=timings_message(timings),
        image_size=size,
    )


def detect_response(
    answer: results.Answer, timings: Timings, size: pb.ImageSize
) -> pb.DetectResponse:
    """Return a detector's answer as a message."""
    assert isinstance(answer.result, results.Detected)
    return pb.DetectResponse(
        detections=detections(answer.result),
        served_by=served_by(answer.served_by),
        timings=timings_message(timings),
        image_size=size,
    )


def classifications(result: results.Classified) -> list[pb.Classification]:
    """Return labels as messages."""
    return [
        pb.Classification(class_id=c.class_id, label=c.label, score=c.score)
        for c in result.classifications
    ]


def detections(result: results.Detected) -> list[pb.Detection]:
    """Return objects as messages."""
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


def served_by(by: results.ServedBy) -> pb.ServedBy:
    """Return what answered as a message."""
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
    """Return width and height of a picture that was decoded, as a message."""
    return pb.ImageSize(width=picture.width, height=picture.height)


def streamed_answer(answer: comparison.ModelAnswer) -> pb.StreamedAnswer:
    """Return one answer of a comparison, as it arrives."""
    return pb.StreamedAnswer(task=_TASKS[answer.model.task], answer=model_answer(answer))


def task_comparison(compared: comparison.TaskComparison) -> pb.TaskComparison:
    """Return the answers for one task as a message."""
    return pb.TaskComparison(
        task=_TASKS[compared.task],
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
    _write_agreement(message, answer.agreement)
    return message


def _write_agreement(message: pb.ModelAnswer, agreement: comparison.Agreement | None) -> None:
    if isinstance(agreement, comparison.ClassificationAgreement):
        message.classification_agreement.CopyFrom(
            pb.ClassificationAgreement(
                same_top1=agreement.same_top1,
                top_k_overlap=agreement.top_k_overlap,
                jensen_shannon_divergence=agreement.jensen_shannon_divergence,
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
            )
        )


def model_card(model: ServedModel, versions: Sequence[int], whole: bool) -> pb.Model:
    """Return a model's card; whole: with labels and receipt."""
    document = model.document
    message = pb.Model(
        name=model.name,
        version=model.version,
        versions=versions,
        tasks=[_TASKS[document.task]],
        precision=model.served_by.precision,
        variant_of=document.variant_of or "",
        execution_provider=model.served_by.execution_provider,
        random_weights=document.provenance.random_weights,
        facts=_facts(document.facts),
        label_set=pb.LabelSet(
            name=document.label_set.name,
            size=len(document.label_set.labels),
            labels=document.label_set.labels if whole else (),
        ),
        input=pb.ModelInput(
            width=document.input.width,
            height=document.input.height,
            resize=document.input.describe_resize(),
        ),
        provenance=_provenance(document),
        verification=pb.Verification(
            digest=model.verification.digest,
            golden_sample=model.verification.golden_sample,
        ),
    )
    if defaults := document.detection_defaults:
        message.detection_defaults.CopyFrom(pb.DetectionDefaults(**defaults.model_dump()))
    if document.accuracy is not None:
        message.accuracy.CopyFrom(pb.Accuracy(**document.accuracy.model_dump()))
    if whole and document.receipt is not None:
        message.receipt.CopyFrom(_receipt(document.receipt))
    return message


def _facts(facts: Facts) -> pb.ModelFacts:
    return pb.ModelFacts(**facts.model_dump())


def _provenance(document: ModelDocument) -> pb.Provenance:
    provenance = document.provenance
    return pb.Provenance(
        weights_source=provenance.weights_source,
        weights_sha256=provenance.weights_sha256 or "",
        exporter=provenance.exporter,
        exported_at=provenance.exported_at.isoformat() if provenance.exported_at else "",
        libraries=provenance.libraries,
        conversion=provenance.conversion,
    )


def _receipt(receipt: Receipt) -> pb.Receipt:
    return pb.Receipt(
        made_at=receipt.made_at.isoformat(),
        score_tolerance=receipt.score_tolerance or 0,
        box_tolerance_px=receipt.box_tolerance_px or 0,
        max_score_difference=receipt.max_score_difference,
        max_box_difference_px=receipt.max_box_difference_px,
        rows=pb.RowComparison(**receipt.rows.model_dump()) if receipt.rows else None,
        pictures=[pb.ReceiptPicture(**picture.model_dump()) for picture in receipt.pictures],
    )
